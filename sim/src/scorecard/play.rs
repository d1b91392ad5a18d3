//! Runs rows with many seeds, on all cores.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Row, Seen};

/// What one arm of a row showed with all seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// With how many seeds it met the target.
    pub met: usize,
    /// What the worst seed showed; of a control arm, which has to be bad, the best one.
    pub seen: Seen,
    /// Which seed that was.
    pub seed: u64,
}

/// What a row came to.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Which.
    pub row: Row,
    /// With how many seeds.
    pub seeds: usize,
    /// The mesh.
    pub mesh: Arm,
    /// Its control arms, in their order.
    pub controls: Vec<Arm>,
}

impl Verdict {
    /// The mesh met the target with every seed, and no control arm with any.
    pub fn holds(&self) -> bool {
        self.mesh_holds() && self.controls_fail()
    }

    pub(super) fn mesh_holds(&self) -> bool {
        self.mesh.met == self.seeds
    }

    pub(super) fn controls_fail(&self) -> bool {
        !self.controls.is_empty() && self.controls.iter().all(|control| control.met == 0)
    }
}

/// The rows with these names, or all; an error names one that is not there.
pub fn chosen(rows: Vec<Row>, only: &[String]) -> Result<Vec<Row>, String> {
    if let Some(unknown) = only.iter().find(|name| rows.iter().all(|row| row.name != name.as_str())) {
        let hint = mesh_core::config::suggestion(unknown, rows.iter().map(|row| row.name).collect::<Vec<_>>());
        return Err(format!("no row is called `{unknown}`{hint}"));
    }
    Ok(rows.into_iter().filter(|row| only.is_empty() || only.iter().any(|name| name == row.name)).collect())
}

/// Runs each row and its control arms with each seed, and tells `done` of each row in their order.
pub fn play(rows: &[Row], seeds: Range<u64>, mut done: impl FnMut(&Verdict)) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for row in rows {
        let verdict = one(row, seeds.clone());
        done(&verdict);
        verdicts.push(verdict);
    }
    verdicts
}

fn one(row: &Row, seeds: Range<u64>) -> Verdict {
    let arms: Vec<fn(u64) -> Seen> =
        std::iter::once(row.mesh).chain(row.controls.iter().map(|control| control.run)).collect();
    let tasks: Vec<(u64, usize)> = seeds.flat_map(|seed| (0..arms.len()).map(move |arm| (seed, arm))).collect();
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(tasks.len())));
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(tasks.len()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((seed, arm)) = tasks.get(next.fetch_add(1, Relaxed)) {
                    let Some(run) = arms.get(*arm) else { continue };
                    let result = run(*seed);
                    // A panic of another worker ends the scope with it.
                    if let Ok(mut seen) = seen.lock() {
                        seen.push((*seed, *arm, result));
                    }
                }
            });
        }
    });
    let mut seen = seen.into_inner().unwrap_or_default();
    seen.sort_by_key(|(seed, arm, _)| (*arm, *seed));
    let of = |wanted: usize| -> Vec<(u64, Seen)> {
        seen.iter().filter(|(_, arm, _)| *arm == wanted).map(|(seed, _, seen)| (*seed, seen.clone())).collect()
    };
    let mesh = of(0);
    let controls = (1..arms.len()).map(|number| arm(of(number), -1.0)).collect();
    Verdict { row: *row, seeds: mesh.len(), mesh: arm(mesh, 1.0), controls }
}

/// `sign`: whether the most or the least bad seed speaks for it.
fn arm(seen: Vec<(u64, Seen)>, sign: f64) -> Arm {
    let met = seen.iter().filter(|(_, seen)| seen.met).count();
    let nothing = Seen { met: false, text: "nothing was run".to_owned(), badness: 0.0 };
    // Of equals the first seed.
    let worst = seen.into_iter().rev().max_by(|(_, a), (_, b)| (sign * a.badness).total_cmp(&(sign * b.badness)));
    let (seed, seen) = worst.unwrap_or((0, nothing));
    Arm { met, seen, seed }
}
