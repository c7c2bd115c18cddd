//! A lock beside the lease, so that the successor of a killed medic does not wait for the lease to expire.
//!
//! The rule: the medic that uses the store keeps `medic.lock` locked and has written its name into it. The kernel
//! releases the lock of a dead process. A medic that gets the lock, and finds in it the name that is on the lease, knows
//! that the holder is dead, and takes the lease over at once.
//!
//! Edge cases: on some network file systems locks do not reach other machines. So the file names the kernel's boot, and
//! a lock of another boot proves nothing. Nor does a file that cannot be locked, read or written: then the lease expires.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const FILE_NAME: &str = "medic.lock";
/// A boot's id and a holder's name are shorter; a longer file is not ours.
const LONGEST: u64 = 4096;

/// Our lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct LockFile {
    _file: File,
    /// The holder before us, which is dead.
    predecessor: Option<String>,
}

impl LockFile {
    /// Takes the lock and writes `holder` into it. `None` when somebody else has it, or it cannot be had.
    pub(super) fn take(state_dir: &Path, holder: &str) -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Self::take_in(&boot, state_dir, holder)
    }

    fn take_in(boot: &str, state_dir: &Path, holder: &str) -> Option<Self> {
        let path = state_dir.join(FILE_NAME);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = opened.ok()?;
        file.try_lock().ok()?;
        let mut written = String::new();
        let readable = (&file).take(LONGEST).read_to_string(&mut written).is_ok();
        let ours = format!("{}\n", boot.trim());
        let predecessor = written.strip_prefix(&ours).filter(|_| readable).map(ToOwned::to_owned);
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{ours}{holder}")).ok()?;
        Some(Self { _file: file, predecessor })
    }

    /// Whether this lock proves that `holder` is dead.
    pub(super) fn proves_dead(&self, holder: &str) -> bool {
        self.predecessor.as_deref() == Some(holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_file_proves_the_death_of_its_last_holder() {
        let dir = tempfile::tempdir().unwrap();
        let one = LockFile::take_in("boot", dir.path(), "one").unwrap();
        assert!(!one.proves_dead("one"));
        assert!(LockFile::take_in("boot", dir.path(), "two").is_none(), "one lives");
        drop(one);
        let two = LockFile::take_in("boot", dir.path(), "two").unwrap();
        assert!(two.proves_dead("one") && !two.proves_dead("somebody on another machine"));
    }

    #[test]
    fn lock_file_of_another_boot_or_damaged_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(LockFile::take_in("boot", dir.path(), "one").unwrap());
        assert!(!LockFile::take_in("another boot", dir.path(), "two").unwrap().proves_dead("one"));
        for damaged in [&b""[..], b"boot", b"one", b"\xff\xfe\n", &[b'x'; 9000]] {
            std::fs::write(dir.path().join(FILE_NAME), damaged).unwrap();
            assert!(!LockFile::take_in("boot", dir.path(), "two").unwrap().proves_dead("one"));
        }
        assert!(LockFile::take_in("boot", &dir.path().join("not there"), "two").is_none());
    }
}
