//! Medians side by side.

use std::fmt;

/// What one run measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    /// Microseconds.
    pub(super) p50: f64,
    /// Microseconds.
    pub(super) p99: f64,
    pub(super) rps: f64,
    /// CPU milliseconds of both processes for one request.
    pub(super) cpu: f64,
    pub(super) errors: u64,
}

/// All runs of one protocol at one load.
#[derive(Debug)]
pub(super) struct Cell {
    proto: &'static str,
    conc: u32,
    runs: Vec<(Figures, Figures)>,
}

impl Cell {
    /// Microseconds; requests a second; CPU seconds of client and server per 1,000 requests.
    pub(super) const HEAD: &str = "\
| proto | in flight | p50 us mtls | mesh | added | p99 us mtls | mesh | rps mtls | mesh | ratio | cpu/1000 mtls | mesh | ratio | errors |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

    pub(super) fn new(proto: &'static str, conc: u32) -> Self {
        Self { proto, conc, runs: Vec::new() }
    }

    pub(super) fn add(&mut self, mtls: Figures, mesh: Figures) {
        self.runs.push((mtls, mesh));
    }

    fn median(&self, of: impl Fn(&(Figures, Figures)) -> f64) -> f64 {
        median(self.runs.iter().map(of).collect())
    }
}

/// The middle of what there is, the lower one of two; NaN of nothing.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Cell {
    /// Differences and ratios are medians of those within each round, not of the medians.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: u64 = self.runs.iter().map(|(mtls, mesh)| mtls.errors.saturating_add(mesh.errors)).sum();
        write!(
            f,
            "| {} | {} | {:.1} | {:.1} | {:+.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.4} | {:.4} | {:.2} | {errors} |",
            self.proto,
            self.conc,
            self.median(|run| run.0.p50),
            self.median(|run| run.1.p50),
            self.median(|run| run.1.p50 - run.0.p50),
            self.median(|run| run.0.p99),
            self.median(|run| run.1.p99),
            self.median(|run| run.0.rps),
            self.median(|run| run.1.rps),
            self.median(|run| run.1.rps / run.0.rps),
            self.median(|run| run.0.cpu),
            self.median(|run| run.1.cpu),
            self.median(|run| run.1.cpu / run.0.cpu),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_each_round() {
        let run = |p50: f64, rps: f64| Figures { p50, p99: 2.0 * p50, rps, cpu: 1.0 / rps, errors: 0 };
        let mut cell = Cell::new("h2", 64);
        for (mtls, mesh) in [(100.0, 90.0), (10.0, 8.0), (50.0, 35.0)] {
            cell.add(run(1.0, mtls), run(3.5, mesh));
        }
        let row = cell.to_string();
        assert!(row.starts_with("| h2 | 64 | 1.0 | 3.5 | +2.5 | 2 | 7 | 50 | 35 | 0.80 |"), "{row}");
        assert!(row.ends_with("| 1.25 | 0 |"), "{row}");
        assert!(median(Vec::new()).is_nan());
    }
}
