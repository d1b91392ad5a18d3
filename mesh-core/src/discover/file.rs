//! `file`: endpoints in a watched YAML file.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::decode_all;
use super::{EndpointKey, EndpointSet, Resolve, ResolveError, Update, Updates};
use crate::config::{Errors, Fields, Node, yaml};
use crate::plugin::Context;
use crate::stream::unfold;

/// Endpoints in a file that is compared again and again.
///
/// In YAML: `discover: { file: endpoints.yaml }`, or `{ file: { path: endpoints.yaml, interval: 1s } }`.
///
/// # Format
///
/// A list, under `endpoints:` or bare. An entry is `IP:PORT`, or a mapping of which only `address` is required:
///
/// ```yaml
/// endpoints:
///   - "10.0.0.1:8443"
///   - address: "10.0.0.2:8443"
///     key: payments-1                          # what its state is kept by; default: the address
///     locality: { region: eu-west, zone: a }
///     priority: 0                              # 0 to 15; a later one helps as earlier ones lose endpoints
///     weight: 2                                # 1 to 65,535, default 1
///     metadata: { version: v2 }
/// removed: [ payments-0 ]                      # tombstones: keys that are gone for good, however many at once
/// ...
/// ```
///
/// The simplest writer prints one line `- "IP:PORT"` for each address. Write to another file in the same directory and
/// rename it over this one, and print a last line `...`, the end of a document in YAML: a file that is cut short between
/// two entries looks like fewer endpoints.
///
/// # What happens to a bad file
///
/// It is used whole or not at all, and once two reads 50 ms apart agree. While it is missing, unreadable, empty or wrong,
/// each new reason is reported once as [`Update::Stale`], with file, line and field, and the last good set stays in force.
/// A file without its `...` is wrong if the last good one had it. One that is the beginning of the last good one is taken
/// for a part of it: its endpoints are in force, and whatever it lacks [waits to be confirmed](crate::config::HoldConfig),
/// be it a single one.
#[derive(Debug, Clone)]
pub struct FileResolver {
    path: Arc<Path>,
    interval: Duration,
}

impl FileResolver {
    /// Compares `path` every `interval`.
    pub fn new(path: PathBuf, interval: Duration) -> Self {
        Self { path: path.into(), interval }
    }

    /// Reads the settings of `file:`. The interval's default is the configuration's `poll_interval`.
    pub(crate) fn from_node(node: &Node, context: &Context, errors: &mut Errors) -> Option<Arc<dyn Resolve>> {
        let (path, interval) = match node.value {
            yaml::Value::Map(_) => {
                let mut fields = Fields::of(node, errors)?;
                let path = fields.required::<PathBuf>("path");
                let range = Duration::from_millis(50)..=Duration::from_secs(60);
                let interval = fields.within("interval", context.poll_interval, range);
                fields.finish();
                (path?, interval)
            }
            _ => (crate::config::Decode::decode(node, errors)?, context.poll_interval),
        };
        Some(Arc::new(Self::new(context.base_dir.join(path), interval)))
    }
}

impl Resolve for FileResolver {
    /// Needs a tokio runtime: the file is read on its blocking threads.
    fn watch(&self) -> Updates {
        let watch = Watch { resolver: self.clone(), seen: None, text: Text::default() };
        unfold(watch, |mut watch| async move { (watch.next().await, watch) })
    }
}

/// How long a file must keep its content before it is believed, and how often that may fail.
const SETTLE: Duration = Duration::from_millis(50);
const MAX_UNSETTLED: usize = 5;

/// One watcher and what it saw last.
struct Watch {
    resolver: FileResolver,
    /// The text, good or bad, or why there was none.
    seen: Option<Result<String, String>>,
    text: Text,
}

impl Watch {
    async fn next(&mut self) -> Update {
        loop {
            let first = self.seen.is_none();
            if !first {
                tokio::time::sleep(self.resolver.interval).await;
            }
            let mut reading = self.read().await;
            if self.seen.as_ref() == Some(&reading) {
                continue;
            }
            // Somebody may be writing just now. At the start there is nothing better to go on with.
            for _ in 0..if first { 0 } else { MAX_UNSETTLED } {
                tokio::time::sleep(SETTLE).await;
                let again = self.read().await;
                if std::mem::replace(&mut reading, again) == reading {
                    break;
                }
            }
            let read = reading.clone().and_then(|text| self.text.take(&self.resolver.path, text));
            self.seen = Some(reading);
            return match read {
                Ok(set) => Update::Endpoints(set),
                Err(why) => Update::Stale(ResolveError(why)),
            };
        }
    }

    async fn read(&self) -> Result<String, String> {
        let path = Arc::clone(&self.resolver.path);
        match tokio::task::spawn_blocking(move || read(&path)).await {
            Ok(reading) => reading,
            Err(_) => Err(format!("{}: reading was cut off", self.resolver.path.display())),
        }
    }
}

/// The last good text, which tells whether a newer one was cut short.
#[derive(Debug, Default)]
struct Text {
    good: Option<String>,
}

impl Text {
    fn take(&mut self, path: &Path, text: String) -> Result<EndpointSet, String> {
        let set = parse(path, &text)?;
        let good = self.good.as_deref().unwrap_or_default();
        let lost_its_end = ends(good) && !ends(&text);
        if lost_its_end {
            let name = path.display();
            return Err(format!("{name}: cut short: the last good one ended with a line `...`, and this one does not"));
        }
        if text != good && good.starts_with(text.trim_end()) {
            // The good one stays the measure until another one is in its place.
            return Ok(set.partial(true));
        }
        self.good = Some(text);
        Ok(set)
    }
}

/// Whether the document says where it ends.
fn ends(text: &str) -> bool {
    text.trim_end().ends_with("\n...")
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).and_then(|file| {
        // One byte more than the parser takes, so that it is the one to refuse a file that is too long.
        file.take(yaml::MAX_TEXT as u64 + 1).read_to_string(&mut text)
    });
    file.map(|_| text).map_err(|error| format!("{}: cannot read the endpoints: {error}", path.display()))
}

fn parse(path: &Path, text: &str) -> Result<EndpointSet, String> {
    let mut errors = Errors::default();
    let name = path.display().to_string();
    let documents = yaml::parse(&name, text, &mut errors);
    let endpoints = match documents.as_slice() {
        [document] => decode(document, &mut errors),
        [] if !errors.is_empty() => None,
        documents => {
            let found = documents.len();
            return Err(format!("{name}: expected one document with a list of endpoints, found {found} documents"));
        }
    };
    errors.finish(endpoints).map_err(|error| {
        let said: Vec<_> = error.issues().iter().map(ToString::to_string).collect();
        said.join("; ")
    })
}

fn decode(document: &Node, errors: &mut Errors) -> Option<EndpointSet> {
    match document.value {
        yaml::Value::List(_) => decode_all(document, errors).map(Into::into),
        yaml::Value::Map(_) => {
            let mut fields = Fields::of(document, errors)?;
            let list: Option<Node> = fields.required("endpoints");
            let endpoints = list.and_then(|list| decode_all(&list, fields.errors()));
            let removed: Vec<String> = fields.optional("removed").unwrap_or_default();
            let place = fields.place("removed");
            fields.finish();
            let keys: Vec<_> = removed.into_iter().map(|key| EndpointKey(key.into())).collect();
            for endpoint in endpoints.iter().flatten().filter(|endpoint| keys.contains(&endpoint.key)) {
                errors.push(&place, format!("`{}` is both an endpoint and removed", endpoint.key));
            }
            Some(EndpointSet::from(endpoints?).removed(keys))
        }
        _ => document.expected("a list of endpoints, bare or under `endpoints:`", errors),
    }
}

#[cfg(test)]
mod tests;
