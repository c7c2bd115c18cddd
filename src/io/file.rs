//! Files that are read again while the medic works: the configuration, certificates, secrets. They may lie on a share that
//! hangs, which must hold up no manager.
//!
//! The rule: such a file is read on a thread that may block, and is waited for only so long. A reading that has not ended
//! goes on by itself; until it ends nobody waits for the file again, and no second thread is spent on it.

use medic_core::model::Span;
use medic_garm::log::source::Reading;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How long a file is waited for: a disk takes milliseconds, a slow share a second.
const PATIENCE: Span = Span::secs(2);

/// Reads one file, or a few that belong together.
#[derive(Debug)]
pub struct Reader {
    reading: Reading,
    patience: Span,
    /// Held by the one reading under way.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The reading under way has outlived its caller's patience.
    overdue: AtomicBool,
}

impl Reader {
    /// A reader that works where `reading` says.
    #[must_use]
    pub fn new(reading: Reading) -> Self {
        Self { reading, patience: PATIENCE, turn: Arc::default(), overdue: AtomicBool::new(false) }
    }

    /// What `read` gives.
    ///
    /// # Errors
    /// In words, when it has not ended in time, or an earlier reading has not ended yet.
    pub async fn read<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        if self.reading == Reading::AtOnce {
            return Ok(read());
        }
        if self.overdue.load(Ordering::Acquire) && self.turn.try_lock().is_err() {
            return Err("an earlier reading has not ended; does the file system it is on hang?".to_owned());
        }
        let reading = async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let on_thread = move || {
                let _turn = turn;
                read()
            };
            tokio::task::spawn_blocking(on_thread).await
        };
        match tokio::time::timeout(self.patience.into(), reading).await {
            Ok(Ok(read)) => {
                self.overdue.store(false, Ordering::Release);
                Ok(read)
            }
            // Only a panic or the runtime's end gets here.
            Ok(Err(_)) => Err("the reading was broken off".to_owned()),
            Err(_) => {
                self.overdue.store(true, Ordering::Release);
                Err(format!("reading did not end within {}; does the file system it is on hang?", self.patience))
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    /// One that soon loses its patience.
    pub(crate) fn impatient() -> Reader {
        Reader { patience: Span::millis(30), ..Reader::new(Reading::OnThreads) }
    }

    #[tokio::test]
    async fn one_reading_hangs_and_costs_one_thread_and_one_wait_until_it_ends() {
        let reader = impatient();
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
        assert!(hanging.await.unwrap_err().contains("within 30 ms"));
        let asked = Instant::now();
        for _ in 0..100 {
            let refused = reader.read(count(&began)).await.unwrap_err();
            assert!(refused.contains("earlier reading has not ended"), "{refused}");
        }
        assert!(asked.elapsed() < Duration::from_secs(2), "nobody waits again");
        assert_eq!(began.load(Ordering::SeqCst), 1, "no second thread");
        drop(end);
        // Held by the thread until it has ended.
        drop(reader.turn.lock().await);
        assert_eq!(reader.read(|| 7).await, Ok(7));
        assert_eq!(reader.read(|| 8).await, Ok(8));
    }

    #[tokio::test]
    async fn where_time_is_virtual_nothing_waits_for_a_thread() {
        let here = std::thread::current().id();
        assert_eq!(Reader::new(Reading::AtOnce).read(|| std::thread::current().id()).await, Ok(here));
        assert_ne!(Reader::new(Reading::OnThreads).read(|| std::thread::current().id()).await, Ok(here));
    }
}
