//! A sign of life beside the lease, so that a medic that was killed does not keep its successor waiting.
//!
//! The rule: whoever works on the store keeps `medic.lock` locked and has written its name into it. The kernel takes
//! the lock from a dead process, whatever killed it. Who then gets the lock, reads a name in it and finds this name on
//! the lease knows that the holder is dead. It takes the lease over at once, and not when it has run out.
//!
//! Edge cases: locks do not reach other machines on every network file system. So the file names the boot of the
//! kernel that granted the lock, and another boot's lock proves nothing. A file that cannot be locked, read or written
//! proves nothing either: then the lease runs out, as it always may.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The lock's file inside the state directory.
const FILE_NAME: &str = "medic.lock";
/// A boot's id and a holder's name; more than this was not written by us.
const LONGEST: u64 = 4096;

/// Our sign of life: good while it lives.
#[derive(Debug)]
pub(super) struct Life {
    _file: File,
    /// Who had the lock before us, and is dead.
    predecessor: Option<String>,
}

impl Life {
    /// Takes the lock and signs it as `holder`. `None` when somebody else has it, or it cannot be had.
    pub(super) fn show(state_dir: &Path, holder: &str) -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Self::show_in(&boot, state_dir, holder)
    }

    fn show_in(boot: &str, state_dir: &Path, holder: &str) -> Option<Self> {
        let path = state_dir.join(FILE_NAME);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = opened.ok()?;
        file.try_lock().ok()?;
        let mut signed = String::new();
        let readable = (&file).take(LONGEST).read_to_string(&mut signed).is_ok();
        let ours = format!("{}\n", boot.trim());
        let predecessor = signed.strip_prefix(&ours).filter(|_| readable).map(ToOwned::to_owned);
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{ours}{holder}")).ok()?;
        Some(Self { _file: file, predecessor })
    }

    /// Whether this lock proves that `holder` is dead.
    pub(super) fn outlived(&self, holder: &str) -> bool {
        self.predecessor.as_deref() == Some(holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_to_get_the_lock_knows_who_died() {
        let dir = tempfile::tempdir().unwrap();
        let one = Life::show_in("boot", dir.path(), "one").unwrap();
        assert!(!one.outlived("one"));
        assert!(Life::show_in("boot", dir.path(), "two").is_none(), "one lives");
        drop(one);
        let two = Life::show_in("boot", dir.path(), "two").unwrap();
        assert!(two.outlived("one") && !two.outlived("somebody on another machine"));
    }

    #[test]
    fn a_lock_of_another_boot_or_a_file_of_others_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(Life::show_in("boot", dir.path(), "one").unwrap());
        assert!(!Life::show_in("another boot", dir.path(), "two").unwrap().outlived("one"));
        for damaged in [&b""[..], b"boot", b"one", b"\xff\xfe\n", &[b'x'; 9000]] {
            std::fs::write(dir.path().join(FILE_NAME), damaged).unwrap();
            assert!(!Life::show_in("boot", dir.path(), "two").unwrap().outlived("one"));
        }
        assert!(Life::show_in("boot", &dir.path().join("not there"), "two").is_none());
    }
}
