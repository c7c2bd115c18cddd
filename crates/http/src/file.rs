//! Files: configuration, certificates, secrets, logs. Reads are bounded in bytes, and a share that hangs blocks nothing
//! else.
//!
//! A [`FileReader`] reads on a thread that may block and waits for a limited time. A read that has not ended continues in
//! the background; until it ends, nobody waits for the file again, and no second thread is used for it.

use medic_core::model::Span;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How long a file is waited for: a disk takes milliseconds, a slow share a second.
const READ_TIMEOUT: Span = Span::secs(2);

/// The whole file, or `None` when it is longer than `limit` bytes; never reads more than one byte past it.
pub fn read_bounded(path: &Path, limit: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// On threads that may block.
    #[default]
    OnThreads,
    /// At once, where virtual time must not wait for threads.
    AtOnce,
}

/// Reads one file, or a few that belong together.
#[derive(Debug)]
pub struct FileReader {
    reading: Reading,
    timeout: Span,
    /// Held by the one read under way.
    reading_lock: Arc<tokio::sync::Mutex<()>>,
    /// The read under way has exceeded a caller's time-out.
    overdue: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    #[error("an earlier read has not ended; does the file system hang?")]
    Busy,
    #[error("the read did not end within {0}; does the file system hang?")]
    Late(Span),
    /// A panic, or the end of the runtime.
    #[error("the read was aborted")]
    Broken,
}

impl FileReader {
    pub fn new(reading: Reading) -> Self {
        Self { reading, timeout: READ_TIMEOUT, reading_lock: Arc::default(), overdue: AtomicBool::new(false) }
    }

    pub fn with_timeout(timeout: Span) -> Self {
        Self { timeout, ..Self::new(Reading::OnThreads) }
    }

    /// Returns what `read` returns; an error if it has not ended in time, or an earlier read has not ended yet.
    pub async fn read<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, NotRead> {
        self.read_within(self.timeout, read).await
    }

    /// As [`Self::read`], with another time-out.
    pub async fn read_within<T: Send + 'static>(
        &self,
        timeout: Span,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotRead> {
        if self.reading == Reading::AtOnce {
            return Ok(read());
        }
        if self.overdue.load(Ordering::Acquire) && self.reading_lock.try_lock().is_err() {
            return Err(NotRead::Busy);
        }
        let reading = async {
            let lock = Arc::clone(&self.reading_lock).lock_owned().await;
            let on_thread = move || {
                let _lock = lock;
                read()
            };
            tokio::task::spawn_blocking(on_thread).await
        };
        let read = match tokio::time::timeout(timeout.into(), reading).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(_)) => Err(NotRead::Broken),
            Err(_) => Err(NotRead::Late(timeout)),
        };
        self.overdue.store(matches!(read, Err(NotRead::Late(_))), Ordering::Release);
        read
    }

    /// The read under way makes progress, so that waiting for it is worthwhile again.
    pub fn progressed(&self) {
        self.overdue.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn reader_spends_one_thread_and_one_wait_on_a_hanging_read() {
        let reader = FileReader::with_timeout(Span::millis(30));
        let (end, hangs) = mpsc::channel::<()>();
        let began = Arc::new(AtomicUsize::new(0));
        let count = |began: &Arc<AtomicUsize>| {
            let began = Arc::clone(began);
            move || began.fetch_add(1, Ordering::SeqCst)
        };
        let first = count(&began);
        let hanging = reader.read(move || {
            first();
            hangs.recv().unwrap_err();
        });
        assert_eq!(hanging.await, Err(NotRead::Late(Span::millis(30))));
        let asked = Instant::now();
        for _ in 0..100 {
            assert_eq!(reader.read(count(&began)).await, Err(NotRead::Busy));
        }
        assert!(asked.elapsed() < Duration::from_secs(2), "nobody waits again");
        assert_eq!(began.load(Ordering::SeqCst), 1, "no second thread");
        drop(end);
        // Held by the thread until it has ended.
        drop(reader.reading_lock.lock().await);
        assert_eq!(reader.read(|| 7).await, Ok(7));
        assert_eq!(reader.read(|| 8).await, Ok(8));
    }

    #[tokio::test]
    async fn reader_at_once_uses_no_thread() {
        let here = std::thread::current().id();
        assert_eq!(FileReader::new(Reading::AtOnce).read(|| std::thread::current().id()).await, Ok(here));
        assert_ne!(FileReader::new(Reading::OnThreads).read(|| std::thread::current().id()).await, Ok(here));
    }
}
