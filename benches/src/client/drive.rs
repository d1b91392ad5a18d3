//! A closed loop: each caller sends its next request when the last one is answered.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Measured;
use crate::{Error, cpu};

/// One caller, with whatever connection it holds.
pub trait Caller: Send + 'static {
    /// One request to the end of its response; wrong answers are errors.
    fn call(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// How long the load lasts.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Not measured.
    pub warmup: Duration,
    /// Measured.
    pub duration: Duration,
    /// A process whose CPU time counts beside our own.
    pub with_pid: Option<u32>,
}

/// How long a caller waits after an error, so that a dead server does not turn the loop into a spin.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs every caller at once.
pub async fn drive<C: Caller>(callers: Vec<C>, load: Load) -> Result<Measured, Error> {
    let begin = Instant::now() + load.warmup;
    let end = begin + load.duration;
    let mut tasks = JoinSet::new();
    for caller in callers {
        tasks.spawn(work(caller, begin, end));
    }
    tokio::time::sleep_until(begin).await;
    let cpu_before = cpu::seconds_with(load.with_pid);
    tokio::time::sleep_until(end).await;
    let cpu_after = cpu::seconds_with(load.with_pid);
    let mut total = Measured::new()?;
    while let Some(done) = tasks.join_next().await {
        total.add(&done??)?;
    }
    total.seconds = load.duration.as_secs_f64();
    total.cpu_seconds = cpu_before.zip(cpu_after).map(|(before, after)| after - before);
    Ok(total)
}

/// Counts what was answered between `begin` and `end`.
async fn work<C: Caller>(mut caller: C, begin: Instant, end: Instant) -> Result<Measured, Error> {
    let mut measured = Measured::new()?;
    let mut start = Instant::now();
    while start < end {
        let result = caller.call().await;
        let stop = Instant::now();
        let counts = stop >= begin && stop < end;
        match result {
            Ok(()) if counts => measured.answered(stop - start),
            Ok(()) => {}
            Err(error) => {
                if counts {
                    measured.failed(&error);
                }
                sleep(PAUSE).await;
            }
        }
        start = Instant::now();
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Every(u32);

    impl Caller for Every {
        async fn call(&mut self) -> Result<(), Error> {
            sleep(Duration::from_millis(10)).await;
            self.0 += 1;
            if self.0.is_multiple_of(10) { Err("tenth".into()) } else { Ok(()) }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_measured_time_counts() {
        let load = Load { warmup: Duration::from_secs(1), duration: Duration::from_secs(11), with_pid: None };
        let measured = drive(vec![Every(0), Every(0)], load).await.unwrap();
        let report = measured.report();
        // Ten calls and one pause take 110 ms: 100 rounds a caller, nine answers and one error each.
        assert!((1_790..=1_810).contains(&report.requests), "{report:?}");
        assert!((198..=202).contains(&report.errors), "{report:?}");
        assert!((9_900.0..=10_100.0).contains(&report.p50), "{report:?}");
        assert_eq!(report.first_error.as_deref(), Some("tenth"));
    }
}
