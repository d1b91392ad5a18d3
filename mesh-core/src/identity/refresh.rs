//! Lets a source be asked to look now, and says when it has.
//!
//! A source looks at its files or its agent from time to time. A peer whose issuer is unknown may mean that a root was
//! added since: then somebody asks, and wants to know when the answer is in. A source keeps one [`Looks`] for all its
//! clones; each watcher waits through a [`Watcher`].

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;

/// Ends when the source has looked and what it found was taken from its stream.
///
/// Dropping it withdraws nothing.
pub type Looked = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The wishes of those who want a source to look.
///
/// By number, with the last one that was fulfilled.
///
/// Asking is free and wishes merge: a source looks once for all that were made while it looked. It does not limit how
/// often it is asked; [`Mesh::refresh_identity`](crate::Mesh::refresh_identity) does.
#[derive(Debug, Clone)]
pub struct Looks {
    asked: watch::Sender<u64>,
    looked: watch::Sender<u64>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { asked: watch::Sender::new(0), looked: watch::Sender::new(0) }
    }
}

impl Looks {
    /// Ends the wait of every [`Watcher`].
    ///
    /// The future ends when one of them has looked since.
    pub fn ask(&self) -> Looked {
        let mut wish = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            wish = *asked;
        });
        let mut looked = self.looked.subscribe();
        // Held, so that a source that is gone is waited for in vain, not taken for one that has looked.
        let held = self.looked.clone();
        Box::pin(async move {
            let _held = held;
            let _ = looked.wait_for(|fulfilled| *fulfilled >= wish).await;
        })
    }

    /// The side of one watcher.
    pub fn watcher(&self) -> Watcher {
        let mut asked = self.asked.subscribe();
        // What was asked before anybody watched, the first look answers.
        let answers = *asked.borrow_and_update();
        Watcher { asked, answers, looks: self.clone() }
    }
}

/// How one watcher of a source waits, and tells that it has looked.
#[derive(Debug)]
pub struct Watcher {
    asked: watch::Receiver<u64>,
    answers: u64,
    looks: Looks,
}

impl Watcher {
    /// Waits for `pause` or until somebody asks; then the source looks.
    ///
    /// Call it when everything that the last look found has been taken: it says that this look is over. Cancel safe.
    pub async fn wait(&mut self, pause: Duration) {
        let answers = self.answers;
        self.looks.looked.send_if_modified(|looked| {
            let newer = *looked < answers;
            *looked = answers.max(*looked);
            newer
        });
        // `changed` cannot fail: the sender lives in `looks`.
        let _ = tokio::time::timeout(pause, self.asked.changed()).await;
        self.answers = *self.asked.borrow_and_update();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wish_ends_the_wait_and_is_fulfilled_when_the_next_one_begins() {
        let looks = Looks::default();
        let mut watcher = looks.watcher();
        let hour = Duration::from_secs(3600);
        assert!(watcher.wait(hour).now_or_never().is_none());
        let (mut first, mut second) = (looks.ask(), looks.ask());
        let asked = Instant::now();
        watcher.wait(hour).await;
        assert_eq!(asked.elapsed(), Duration::ZERO);
        assert!((&mut first).now_or_never().is_none(), "it looks now");
        let mut late = looks.ask();
        assert!(watcher.wait(hour).now_or_never().is_some(), "a wish made during a look leads to another");
        assert_eq!(((&mut first).now_or_never(), (&mut second).now_or_never()), (Some(()), Some(())));
        assert!((&mut late).now_or_never().is_none());
        assert!(watcher.wait(hour).now_or_never().is_none());
        assert!(late.now_or_never().is_some());
        watcher.wait(Duration::from_secs(5)).await;
        assert_eq!(asked.elapsed(), Duration::from_secs(5), "without a wish it is the pause that ends");
    }
}
