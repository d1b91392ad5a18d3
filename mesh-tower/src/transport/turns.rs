//! Whose handshake goes on next: addresses take turns, and between two steps everybody else has theirs.
//!
//! A step of a handshake is about 0.2 ms of signatures and key exchange, and an event loop runs what is ready before it
//! looks for what has come. Clients that are cut together come back together: twenty of them were one stretch of 5 ms
//! in which no request was read. So steps wait in a queue, and each lets the runtime look at its sockets first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::peers::counted;

/// A number of turns, for which addresses wait in a circle and the clients of one address in a row.
///
/// As many may wait as there are half-open connections. The lock is held for a look-up.
#[derive(Debug)]
pub(crate) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    next: u64,
    /// None is empty.
    rows: HashMap<IpAddr, BTreeMap<u64, oneshot::Sender<()>>>,
    /// Each address that has a row, once.
    circle: VecDeque<IpAddr>,
}

/// One turn, given back on drop.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

/// A place in a row; given up on drop, and with it a turn that came too late.
struct Waiting<'a> {
    turns: &'a Turns,
    address: IpAddr,
    number: u64,
    called: oneshot::Receiver<()>,
    taken: bool,
}

impl Turns {
    pub(super) fn new(turns: usize) -> Self {
        Self(Mutex::new(State { free: turns.max(1), next: 0, rows: HashMap::new(), circle: VecDeque::new() }))
    }

    /// The next turn that falls to `address`. Cancel safe.
    pub(super) async fn take(&self, address: IpAddr) -> Turn<'_> {
        let mut waiting = match self.ask(address) {
            Ok(turn) => return turn,
            Err(waiting) => waiting,
        };
        // Never an error: who takes the sender out of its row uses it, or is `waiting` itself.
        let _ = (&mut waiting.called).await;
        waiting.taken = true;
        Turn(self)
    }

    fn ask(&self, address: IpAddr) -> Result<Turn<'_>, Waiting<'_>> {
        let state = &mut *self.lock();
        if state.free > 0 {
            state.free -= 1;
            return Ok(Turn(self));
        }
        let address = counted(address);
        let (call, called) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        let row = state.rows.entry(address).or_insert_with(|| {
            state.circle.push_back(address);
            BTreeMap::new()
        });
        row.insert(number, call);
        Err(Waiting { turns: self, address, number, called, taken: false })
    }

    fn give_back(&self) {
        let state = &mut *self.lock();
        while let Some(address) = state.circle.pop_front() {
            let Some(row) = state.rows.get_mut(&address) else { continue };
            let first = row.pop_first();
            if row.is_empty() {
                state.rows.remove(&address);
            } else {
                state.circle.push_back(address);
            }
            if let Some((_, call)) = first {
                let _ = call.send(()); // its receiver is there: `Waiting` leaves its row first
                return;
            }
        }
        state.free += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // What could panic between two changes is allocation, which aborts.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut state = self.turns.lock();
        let State { rows, circle, .. } = &mut *state;
        let left = rows.get_mut(&self.address).and_then(|row| {
            let left = row.remove(&self.number)?;
            Some((left, row.is_empty()))
        });
        match left {
            Some((_, true)) => {
                rows.remove(&self.address);
                circle.retain(|address| *address != self.address);
            }
            Some(_) => {}
            None => {
                drop(state);
                self.turns.give_back();
            }
        }
    }
}

/// Polls `handshake` to its end, each time in a turn of `address`.
///
/// For a task's own poll: whatever wakes the task is taken for something that the handshake waits for.
pub(super) async fn in_turns<F: Future>(turns: &Turns, address: IpAddr, mut handshake: Pin<&mut F>) -> F::Output {
    loop {
        let turn = turns.take(address).await;
        yield_now().await; // what has come meanwhile, and what is ready, goes first
        let polled = poll_fn(|cx| Poll::Ready(handshake.as_mut().poll(cx))).await;
        drop(turn);
        if let Poll::Ready(done) = polled {
            return done;
        }
        let mut woken = false;
        poll_fn(|_| if std::mem::replace(&mut woken, true) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// Waits for a turn, and notes who had it.
    async fn note(turns: &Turns, last: u8, order: &Mutex<Vec<u8>>) {
        let _turn = turns.take(address(last)).await;
        order.lock().unwrap().push(last);
    }

    #[tokio::test]
    async fn addresses_take_turns_and_whoever_comes_alone_is_soon_next() {
        let (turns, order) = (Turns::new(1), Mutex::default());
        let first = turns.take(address(1)).await;
        let crowd = async { tokio::join!(note(&turns, 1, &order), note(&turns, 1, &order), note(&turns, 1, &order)) };
        tokio::join!(biased; crowd, note(&turns, 2, &order), note(&turns, 3, &order), async { drop(first) });
        assert_eq!(*order.lock().unwrap(), [1, 2, 3, 1, 1]);
        let state = turns.lock();
        assert!(state.free == 1 && state.rows.is_empty() && state.circle.is_empty(), "{state:?}");
    }

    #[tokio::test]
    async fn whoever_goes_away_keeps_no_turn() {
        let turns = Turns::new(1);
        let first = turns.take(address(1)).await;
        let (mut gone, mut late) = (Box::pin(turns.take(address(2))), Box::pin(turns.take(address(2))));
        let mut stays = Box::pin(turns.take("2001:db8::1".parse().unwrap()));
        for waiting in [&mut gone, &mut late, &mut stays] {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        drop(gone);
        drop(first); // to `late`, who is not asked any more
        drop(late);
        drop(stays.await);
        let state = turns.lock();
        assert!(state.free == 1 && state.rows.is_empty() && state.circle.is_empty(), "{state:?}");
    }

    /// How many of twenty steps were done when a byte was read that came with the first one.
    async fn steps_before_a_read(turns: Option<Arc<Turns>>) -> usize {
        const CROWD: usize = 20;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut ours, _) = listener.accept().await.unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let reader = tokio::spawn({
            let done = Arc::clone(&done);
            async move {
                ours.read_exact(&mut [0]).await.unwrap();
                done.load(Ordering::Relaxed)
            }
        });
        tokio::task::yield_now().await; // the reader waits
        let mut crowd = JoinSet::new();
        for _ in 0..CROWD {
            let (turns, done) = (turns.clone(), Arc::clone(&done));
            crowd.spawn(async move {
                let step = pin!(async { done.fetch_add(1, Ordering::Relaxed) });
                match turns {
                    Some(turns) => in_turns(&turns, address(1), step).await,
                    None => step.await,
                }
            });
        }
        theirs.write_all(&[0]).await.unwrap();
        crowd.join_all().await;
        reader.await.unwrap()
    }

    #[tokio::test]
    async fn requests_are_read_between_the_handshakes_of_a_crowd() {
        assert!(steps_before_a_read(None).await >= 20, "the control: all of them first");
        let before = steps_before_a_read(Some(Arc::new(Turns::new(1)))).await;
        assert!(before <= 2, "{before} steps before the read");
    }

    #[tokio::test]
    async fn a_handshake_goes_on_when_it_is_woken() {
        let (turns, (send, receive)) = (Turns::new(1), oneshot::channel());
        let waits = pin!(receive);
        let (received, ()) = tokio::join!(in_turns(&turns, address(1), waits), async {
            drop(turns.take(address(2)).await); // nobody waits in his turn
            send.send(7).unwrap();
        });
        assert_eq!(received, Ok(7));
    }
}
