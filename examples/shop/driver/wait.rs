//! Waiting for something to become true, not for time to pass.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Error;

const POLL: Duration = Duration::from_millis(10);

/// Asks until there is an answer; says how long that took. An error if there is none within `limit`.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<Option<T>, Error>,
) -> Result<(T, Duration), Error> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok((answer, start.elapsed()));
        }
        if start.elapsed() > limit {
            return Err(format!("waited {limit:?} in vain for {what}").into());
        }
        sleep(POLL).await;
    }
}
