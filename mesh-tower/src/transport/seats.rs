//! Places that a reload may make more or fewer.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many places, given in the order in which they were asked for.
///
/// Fewer of them put nobody out: who has one keeps it, and those that are too many vanish as they are given back.
#[derive(Debug)]
pub(crate) struct Seats {
    free: Arc<Semaphore>,
    /// Places that are to vanish when they are given back.
    surplus: AtomicUsize,
    /// How many there shall be. Locked by those who change it, never by those who ask for one.
    all: Mutex<usize>,
}

/// One of the places, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Seats {
    pub(crate) fn new(all: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(all));
        Arc::new(Self { free, surplus: AtomicUsize::new(0), all: Mutex::new(all) })
    }

    /// A place, if one is free.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Seat> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Seat { seats: Arc::clone(self), permit: Some(permit) })
    }

    /// Waits for a place. Cancel safe; whoever gives up loses its turn.
    pub(crate) async fn take(self: &Arc<Self>) -> Seat {
        // Nobody closes the semaphore.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        Seat { seats: Arc::clone(self), permit }
    }

    /// Makes it `all` places from now on. Whether that is another number than before.
    pub(crate) fn resize(&self, all: usize) -> bool {
        let mut now = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, all);
        if all > before {
            let more = all - before;
            let kept = self.pay(more);
            self.free.add_permits(more - kept);
        } else {
            let fewer = before - all;
            // Noted first: what is given back meanwhile vanishes then, and is not looked for below.
            self.surplus.fetch_add(fewer, SeqCst);
            let idle = self.free.forget_permits(fewer);
            // Of those that were free and gone as well, one too many may have vanished.
            self.free.add_permits(idle - self.pay(idle));
        }
        all != before
    }

    /// Takes up to `count` from the surplus. How many that were.
    fn pay(&self, count: usize) -> usize {
        let paid = self.surplus.fetch_update(SeqCst, SeqCst, |surplus| Some(surplus - surplus.min(count)));
        paid.unwrap_or_default().min(count)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.seats.pay(1) == 1
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::rng::Rng;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fewer_put_nobody_out_and_more_are_there_at_once() {
        let seats = Seats::new(3);
        let mut taken: Vec<_> = (0..3).map(|_| seats.try_take().unwrap()).collect();
        assert!(seats.try_take().is_none());
        assert!(seats.resize(1) && !seats.resize(1));
        taken.truncate(1);
        assert!(seats.try_take().is_none(), "two have vanished");
        let waiting = tokio::spawn({
            let seats = Arc::clone(&seats);
            async move { seats.take().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert!(seats.resize(2));
        let second = waiting.await.unwrap();
        assert!(seats.try_take().is_none());
        drop((taken, second));
        assert!([seats.try_take(), seats.try_take()].iter().all(Option::is_some));
    }

    #[test]
    fn there_are_as_many_as_there_shall_be_whatever_was_done() {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
        println!("seed {seed}");
        let rng = Rng::seeded(seed.into());
        let seats = Seats::new(5);
        let (mut all, mut taken) = (5, Vec::new());
        for _ in 0..10_000 {
            match rng.below(3) {
                0 => {
                    all = rng.below(20) + 1;
                    seats.resize(all);
                }
                1 if !taken.is_empty() => drop(taken.swap_remove(rng.below(taken.len()))),
                _ => {
                    let seat = seats.try_take();
                    assert_eq!(seat.is_some(), taken.len() < all, "{} of {all}", taken.len());
                    taken.extend(seat);
                }
            }
        }
    }
}
