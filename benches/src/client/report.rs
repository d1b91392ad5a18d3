//! What was measured, and the one JSON line that says it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::json;

use crate::Error;

/// Counts and latencies of one run.
#[derive(Debug)]
pub struct Measured {
    nanos: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: Option<f64>,
}

impl Measured {
    pub(super) fn new() -> Result<Self, Error> {
        // 1 ns to 100 s at three digits: 0.1 % of what is read, in about 200 KiB.
        let nanos = Histogram::new_with_bounds(1, 100_000_000_000, 3)?;
        Ok(Self { nanos, errors: 0, first_error: None, seconds: 0.0, cpu_seconds: None })
    }

    pub(super) fn answered(&mut self, latency: Duration) {
        self.nanos.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn failed(&mut self, error: &Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| chain(error.as_ref()));
    }

    pub(super) fn add(&mut self, other: &Self) -> Result<(), Error> {
        self.nanos.add(&other.nanos)?;
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
        Ok(())
    }

    /// Requests answered rightly, errors, and percentiles of those answered.
    pub fn report(&self) -> Report {
        let micros = |quantile| self.nanos.value_at_quantile(quantile) as f64 / 1000.0;
        Report {
            requests: self.nanos.len(),
            errors: self.errors,
            rps: if self.seconds > 0.0 { self.nanos.len() as f64 / self.seconds } else { 0.0 },
            p50: micros(0.5),
            p90: micros(0.9),
            p99: micros(0.99),
            p999: micros(0.999),
            cpu_seconds: self.cpu_seconds,
            first_error: self.first_error.clone(),
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The figures of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Answered rightly within the measured time.
    pub requests: u64,
    /// Failed within the measured time.
    pub errors: u64,
    /// `requests` a second.
    pub rps: f64,
    /// Microseconds.
    pub p50: f64,
    /// Microseconds.
    pub p90: f64,
    /// Microseconds.
    pub p99: f64,
    /// Microseconds.
    pub p999: f64,
    /// User and system time within the measured time: the client's, and that of the process it was told to add.
    pub cpu_seconds: Option<f64>,
    /// What the first error said, with its causes.
    pub first_error: Option<String>,
}

impl Report {
    /// One line of JSON.
    pub fn to_json(&self) -> String {
        let tenth = |micros: f64| (micros * 10.0).round() / 10.0;
        let mut line = json!({
            "requests": self.requests,
            "errors": self.errors,
            "rps": tenth(self.rps),
            "p50": tenth(self.p50),
            "p90": tenth(self.p90),
            "p99": tenth(self.p99),
            "p999": tenth(self.p999),
            "cpu_seconds": self.cpu_seconds.map(|seconds| (seconds * 100.0).round() / 100.0),
        });
        if let (Some(error), Some(fields)) = (&self.first_error, line.as_object_mut()) {
            fields.insert("first_error".to_owned(), json!(error));
        }
        line.to_string()
    }
}
