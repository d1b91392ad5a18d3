//! How long a server works on a request.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::config::{Decode, Errors, Fields, Node, Value};
use mesh_core::rng::Rng;

/// Bytes of a file of samples at most.
const MAX_BYTES: u64 = 256 << 20;

/// The distribution of service times.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceTime {
    /// Always the same.
    Constant(Duration),
    /// Memoryless, with this mean.
    Exponential(Duration),
    /// A bell around the median; what falls below zero counts as zero.
    Normal {
        /// The middle.
        median: Duration,
        /// One standard deviation.
        sd: Duration,
    },
    /// A bell around the logarithm of the median: a long tail to the right.
    LogNormal {
        /// The middle.
        median: Duration,
        /// The standard deviation of the logarithm: at 0.5, one in forty takes 2.7 times the median.
        sigma: f64,
    },
    /// Drawn from recorded ones.
    Samples(Arc<[Duration]>),
}

impl ServiceTime {
    /// One of them.
    pub fn sample(&self, rng: &Rng) -> Duration {
        match self {
            Self::Constant(time) => *time,
            Self::Exponential(mean) => mean.mul_f64(-(1.0 - rng.unit()).ln()),
            Self::Normal { median, sd } => {
                let seconds = median.as_secs_f64() + sd.as_secs_f64() * normal(rng);
                Duration::from_secs_f64(seconds.max(0.0))
            }
            Self::LogNormal { median, sigma } => median.mul_f64((sigma * normal(rng)).exp()),
            Self::Samples(samples) => samples.get(rng.below(samples.len())).copied().unwrap_or_default(),
        }
    }

    /// Reads `service_time`; the path of a file starts at `base_dir`.
    pub(super) fn read(node: &Node, base_dir: &Path, errors: &mut Errors) -> Option<Self> {
        if node.as_str().is_some() {
            return Duration::decode(node, errors).map(Self::Constant);
        }
        let entry = match node.entries(errors)? {
            [entry] => entry,
            _ => {
                return node
                    .expected("a duration, or one of constant, exponential, normal, lognormal and file", errors);
            }
        };
        let value = &entry.value;
        match entry.key.as_str() {
            "constant" => Duration::decode(value, errors).map(Self::Constant),
            "exponential" => Duration::decode(value, errors).map(Self::Exponential),
            "normal" => {
                let mut fields = Fields::of(value, errors)?;
                let (median, sd) = (fields.required("median"), fields.required("sd"));
                fields.finish();
                Some(Self::Normal { median: median?, sd: sd? })
            }
            "lognormal" => {
                let mut fields = Fields::of(value, errors)?;
                let median = fields.required("median");
                let sigma = if fields.node("sigma").is_some() {
                    fields.optional_within("sigma", 0.0..=5.0)
                } else {
                    fields.required("sigma")
                };
                fields.finish();
                Some(Self::LogNormal { median: median?, sigma: sigma? })
            }
            "file" => Self::file(value, base_dir, errors),
            _ => {
                let known = ["constant", "exponential", "normal", "lognormal", "file"];
                let message = format!("unknown field{}", mesh_core::config::suggestion(&entry.key, known));
                errors.push(&entry.place, message);
                None
            }
        }
    }

    fn file(node: &Node, base_dir: &Path, errors: &mut Errors) -> Option<Self> {
        let Value::String(name) = &node.value else { return node.expected("the path of a file of samples", errors) };
        let path = base_dir.join(name);
        let large = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > MAX_BYTES);
        let text = if large {
            Err(format!("has more than {MAX_BYTES} bytes"))
        } else {
            std::fs::read_to_string(&path).map_err(|error| format!("cannot be read: {error}"))
        };
        let text = text.map_err(|error| errors.push(&node.place, format!("{}: {error}", path.display()))).ok()?;
        let mut samples = Vec::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            match line.trim().parse::<f64>() {
                Ok(ms) if ms.is_finite() && (0.0..=86_400_000.0).contains(&ms) => {
                    samples.push(Duration::from_secs_f64(ms / 1e3));
                }
                _ => {
                    let message = format!(
                        "{}:{number}: expected one number of milliseconds in a line, found {:?}",
                        path.display(),
                        line.chars().take(40).collect::<String>()
                    );
                    errors.push(&node.place, message);
                    return None;
                }
            }
        }
        if samples.is_empty() {
            errors.push(&node.place, format!("{}: holds no sample", path.display()));
            return None;
        }
        Some(Self::Samples(samples.into()))
    }
}

/// Mean 0, standard deviation 1. (Box and Muller)
fn normal(rng: &Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.unit()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_their_median_and_spread() {
        let ms = Duration::from_millis;
        let samples: Arc<[Duration]> = Arc::from([ms(10), ms(20), ms(30)]);
        for (time, median, mean) in [
            (ServiceTime::Constant(ms(20)), 20.0, 20.0),
            (ServiceTime::Exponential(ms(20)), 20.0 * std::f64::consts::LN_2, 20.0),
            (ServiceTime::Normal { median: ms(167), sd: ms(5) }, 167.0, 167.0),
            (ServiceTime::LogNormal { median: ms(20), sigma: 0.5 }, 20.0, 20.0 * (0.125_f64).exp()),
            (ServiceTime::Samples(samples), 20.0, 20.0),
        ] {
            let rng = Rng::seeded(3);
            let mut seen: Vec<f64> = (0..20_001).map(|_| time.sample(&rng).as_secs_f64() * 1e3).collect();
            seen.sort_unstable_by(f64::total_cmp);
            let seen_mean = seen.iter().sum::<f64>() / seen.len() as f64;
            assert!((seen[10_000] - median).abs() < median * 0.03, "{time:?}: median {}", seen[10_000]);
            assert!((seen_mean - mean).abs() < mean * 0.03, "{time:?}: mean {seen_mean}");
        }
    }
}
