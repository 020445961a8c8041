//! How much the service takes on at a time; may change while it works.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Settings;

/// How much the service takes on at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`Settings::negotiations_max`].
    pub negotiations_max: usize,
    /// See [`Settings::runs_max`].
    pub runs_max: usize,
    /// See [`Settings::open_max`].
    pub open_max: usize,
}

/// The limits in force.
pub(super) struct InForce {
    pub(super) negotiations: Places,
    pub(super) runs: Places,
    open_max: AtomicUsize,
}

/// Places for those who do something at the same time.
pub(super) struct Places {
    semaphore: Arc<Semaphore>,
    count: Mutex<usize>,
}

// === impl InForce ===

impl InForce {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            negotiations: Places::new(settings.negotiations_max),
            runs: Places::new(settings.runs_max),
            open_max: AtomicUsize::new(settings.open_max),
        }
    }

    pub(super) fn open_max(&self) -> usize {
        self.open_max.load(Relaxed)
    }

    /// Takes other limits; who has a place keeps it. Needs a running event loop.
    pub(super) fn set(&self, limits: Limits) {
        self.negotiations.resize(limits.negotiations_max);
        self.runs.resize(limits.runs_max);
        self.open_max.store(limits.open_max, Relaxed);
    }
}

// === impl Places ===

impl Places {
    fn new(count: usize) -> Self {
        let count = count.max(1);
        Self { semaphore: Arc::new(Semaphore::new(count)), count: Mutex::new(count) }
    }

    /// Waits for a place; none only if there will never be one.
    pub(super) async fn take(&self) -> Option<SemaphorePermit<'_>> {
        self.semaphore.acquire().await.ok()
    }

    fn resize(&self, count: usize) {
        let count = count.max(1);
        let mut current = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let (more, fewer) = (count.saturating_sub(*current), current.saturating_sub(count));
        self.semaphore.add_permits(more);
        // Places that are taken go when they are given back.
        let left = fewer - self.semaphore.forget_permits(fewer);
        for _ in 0..left {
            let semaphore = self.semaphore.clone();
            tokio::spawn(async move {
                if let Ok(place) = semaphore.acquire().await {
                    place.forget();
                }
            });
        }
        *current = count;
    }
}

#[cfg(test)]
mod tests {
    use super::Places;

    #[tokio::test]
    async fn places_come_and_go() {
        let places = Places::new(2);
        let (a, b) = (places.take().await, places.take().await);
        places.resize(1);
        // Whoever takes the place away stands in line before anybody else does.
        tokio::task::yield_now().await;
        drop(a);
        {
            // In a scope of its own: who waits holds on to their turn.
            let waiting = std::pin::pin!(places.take());
            tokio::select! {
                biased;
                _ = waiting => panic!("one of the two places is gone"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(b);
        let c = places.take().await;
        places.resize(3);
        let (d, e) = (places.take().await, places.take().await);
        assert!(c.is_some() && d.is_some() && e.is_some());
        assert_eq!(places.semaphore.available_permits(), 0);
    }
}
