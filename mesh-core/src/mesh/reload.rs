//! Notices that files have changed and puts a whole new revision in force, or none.
//!
//! Files are polled and compared by content: watchers miss the symlink swaps of mounted volumes. A writer may be
//! half-way through a file when it is read, so a change counts once two reads in a row agree.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::compile::Compiler;
use super::origin::{Origin, Reading};
use super::{Revision, tasks};
use crate::audit::{Audit, AuditEvent};
use crate::config::{ConfigError, Errors, Place};
use crate::snapshot::Snapshot;
use crate::telemetry::UpdateResult;

/// How long a file must keep its content before it is believed.
const SETTLE: Duration = Duration::from_millis(50);

/// Reads that may disagree before the last one is taken anyway: a file that never rests must not stop all reloads.
const MAX_UNSETTLED: usize = 5;

/// Everything that a reload needs; the mesh itself is not among it.
pub(super) struct Reload {
    pub(super) origin: Arc<Origin>,
    pub(super) compiler: Compiler,
    pub(super) revision: Snapshot<Revision>,
    pub(super) error: Arc<ArcSwapOption<ConfigError>>,
    pub(super) audit: Audit,
}

impl Reload {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self, mut seen: Arc<Reading>) {
        loop {
            tokio::time::sleep(self.revision.load().config.poll_interval).await;
            let Some(reading) = self.changed(&seen).await else { continue };
            let metrics = Arc::clone(&self.compiler.metrics);
            // A plugin that panics over one configuration must not keep all later ones out: a revocation may be among
            // them. The compiler keeps nothing of a revision that failed.
            let result = tasks::caught(self.apply(&reading), &metrics).await.unwrap_or_else(|panic| {
                let mut errors = Errors::default();
                errors.push(&Place::code(), format!("compiling the configuration panicked: {panic}"));
                errors.finish(None)
            });
            self.report(result);
            seen = reading;
        }
    }

    /// What is on disk now, if it is not what was seen last.
    async fn changed(&self, seen: &Arc<Reading>) -> Option<Arc<Reading>> {
        let mut reading = self.read(seen).await;
        for _ in 0..MAX_UNSETTLED {
            if reading.same(seen) {
                return None;
            }
            tokio::time::sleep(SETTLE).await;
            let again = self.read(&reading).await;
            let settled = again.same(&reading);
            reading = again;
            if settled {
                break;
            }
        }
        Some(reading)
    }

    async fn read(&self, last: &Arc<Reading>) -> Arc<Reading> {
        let paths: Vec<PathBuf> = self.revision.load().config.policies.clone();
        Arc::clone(&self.origin).read_in_background(Some(Arc::clone(last)), paths).await
    }

    async fn apply(&mut self, reading: &Reading) -> Result<u64, ConfigError> {
        let loaded = self.origin.load(reading)?;
        let mut errors = Errors::default();
        let current = self.revision.load();
        let compiled = self.compiler.compile(&loaded, Some(&current), &mut errors).await;
        Ok(self.revision.publish(errors.finish(compiled)?))
    }

    fn report(&self, result: Result<u64, ConfigError>) {
        let runtime = &self.compiler.metrics.runtime;
        runtime.config_reload(UpdateResult::from(&result));
        runtime.config_stale.set(i64::from(result.is_err()));
        match result {
            Ok(generation) => {
                runtime.config_generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
                tracing::info!(generation, "configuration reloaded");
                self.loaded(generation);
                self.error.store(None);
            }
            Err(error) => {
                for issue in error.issues() {
                    tracing::error!(%issue, "configuration not reloaded; the last good one stays in force");
                }
                let event = AuditEvent::new(self.compiler.context.clock.now(), AuditEvent::POLICY_REJECT);
                let first = error.issues().first().map(ToString::to_string).unwrap_or_default();
                self.audit.event(event.number("problems", error.issues().len() as u64).text("first", &first));
                self.error.store(Some(Arc::new(error)));
            }
        }
    }

    /// Tells the trail what is in force.
    pub(super) fn loaded(&self, generation: u64) {
        let policies = self.revision.load().policy.len() as u64;
        let event = AuditEvent::new(self.compiler.context.clock.now(), AuditEvent::POLICY_LOAD);
        self.audit.event(event.number("generation", generation).number("policies", policies));
    }
}
