//! `file`: endpoints in a watched YAML file.
//!
//! # Format
//!
//! A list, under `endpoints:` or bare. An entry is `IP:PORT`, or a mapping of which only `address` is required:
//!
//! ```yaml
//! endpoints:
//!   - "10.0.0.1:8443"
//!   - address: "10.0.0.2:8443"
//!     key: payments-1                          # what its state is kept by; default: the address
//!     locality: { region: eu-west, zone: a }
//!     priority: 0                              # 0 to 15; a later one is used only while all earlier ones are out
//!     weight: 2                                # 1 to 65,535, default 1
//!     metadata: { version: v2 }
//! ```
//!
//! The simplest writer prints one line `- "IP:PORT"` for each address. Write to another file in the same directory and
//! rename it over this one: a file read half-written is refused if it is broken, but one that is merely cut short
//! between two entries looks like fewer endpoints.
//!
//! # What happens to a bad file
//!
//! It is used whole or not at all. While it is missing, unreadable, empty or wrong, each new reason is reported once as
//! [`Update::Stale`], with file, line and field, and the last good set stays in force.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::decode_all;
use super::{Endpoint, Resolve, ResolveError, Update, Updates};
use crate::config::{Errors, Fields, Node, yaml};
use crate::plugin::Context;
use crate::stream::unfold;

/// Endpoints in a file that is compared again and again.
///
/// In YAML: `discover: { file: endpoints.yaml }`, or `{ file: { path: endpoints.yaml, interval: 1s } }`.
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
        let watch = Watch { resolver: self.clone(), seen: None };
        unfold(watch, |mut watch| async move { (watch.next().await, watch) })
    }
}

/// One watcher and what it saw last.
struct Watch {
    resolver: FileResolver,
    /// The text, good or bad, or why there was none.
    seen: Option<Result<String, String>>,
}

impl Watch {
    async fn next(&mut self) -> Update {
        loop {
            if self.seen.is_some() {
                tokio::time::sleep(self.resolver.interval).await;
            }
            let path = Arc::clone(&self.resolver.path);
            let reading = match tokio::task::spawn_blocking(move || read(&path)).await {
                Ok(reading) => reading,
                Err(_) => Err(format!("{}: reading was cut off", self.resolver.path.display())),
            };
            if self.seen.as_ref() == Some(&reading) {
                continue;
            }
            let read = reading.clone().and_then(|text| parse(&self.resolver.path, &text));
            self.seen = Some(reading);
            return match read {
                Ok(endpoints) => Update::Endpoints(endpoints),
                Err(why) => Update::Stale(ResolveError(why)),
            };
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).and_then(|file| {
        // One byte more than the parser takes, so that it is the one to refuse a file that is too long.
        file.take(yaml::MAX_TEXT as u64 + 1).read_to_string(&mut text)
    });
    file.map(|_| text).map_err(|error| format!("{}: cannot read the endpoints: {error}", path.display()))
}

fn parse(path: &Path, text: &str) -> Result<Vec<Endpoint>, String> {
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

fn decode(document: &Node, errors: &mut Errors) -> Option<Vec<Endpoint>> {
    match document.value {
        yaml::Value::List(_) => decode_all(document, errors),
        yaml::Value::Map(_) => {
            let mut fields = Fields::of(document, errors)?;
            let list: Option<Node> = fields.required("endpoints");
            let endpoints = list.and_then(|list| decode_all(&list, fields.errors()));
            fields.finish();
            endpoints
        }
        _ => document.expected("a list of endpoints, bare or under `endpoints:`", errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::testing::context;
    use futures_util::StreamExt;
    use serde_json::json;

    fn write(path: &Path, text: &str) {
        let other = path.with_extension("tmp");
        std::fs::write(&other, text).unwrap();
        std::fs::rename(&other, path).unwrap();
    }

    fn stale(update: Option<Update>) -> String {
        match update {
            Some(Update::Stale(error)) => error.to_string(),
            other => panic!("expected a stale source, found {other:?}"),
        }
    }

    fn ports(update: Option<Update>) -> Vec<u16> {
        match update {
            Some(Update::Endpoints(endpoints)) => endpoints.iter().map(|e| e.address.port()).collect(),
            other => panic!("expected endpoints, found {other:?}"),
        }
    }

    #[tokio::test]
    async fn follows_the_file_and_says_each_problem_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoints.yaml");
        let settings = Node::from(&json!({ "path": "endpoints.yaml", "interval": "50ms" }));
        let resolver = FileResolver::from_node(&settings, &context(dir.path()), &mut Errors::default()).unwrap();
        let mut updates = resolver.watch();
        assert!(stale(updates.next().await).contains("cannot read the endpoints"), "missing at the start");
        write(&path, "- \"127.0.0.1:1\"\n");
        assert_eq!(ports(updates.next().await), [1]);
        write(&path, "endpoints:\n  - \"127.0.0.1:1\"\n  - { address: \"127.0.0.1:2\", wieght: 3 }\n");
        let said = stale(updates.next().await);
        assert!(said.contains("endpoints.yaml:3:") && said.contains("endpoints[1].wieght"), "{said}");
        write(&path, "");
        assert!(stale(updates.next().await).contains("found 0 documents"), "a torn write is not an empty set");
        std::fs::remove_file(&path).unwrap();
        assert!(stale(updates.next().await).contains("cannot read the endpoints"));
        write(&path, "- \"127.0.0.1:1\"\n");
        assert_eq!(ports(updates.next().await), [1], "back as it was: reported, since it was stale");
        write(&path, "endpoints: []\n");
        assert_eq!(ports(updates.next().await), [0_u16; 0]);
    }

    #[test]
    fn reads_every_field() {
        let text = "endpoints:\n  - address: \"10.0.0.2:8443\"\n    key: payments-1\n    locality: { region: eu, zone: a }\n    \
                    priority: 1\n    weight: 2\n    metadata: { version: v2 }\n";
        let endpoint = parse(Path::new("e.yaml"), text).unwrap().remove(0);
        assert_eq!(&*endpoint.key.0, "payments-1");
        assert_eq!((endpoint.priority, endpoint.weight), (1, 2));
        assert_eq!((endpoint.locality.region.as_str(), endpoint.locality.zone.as_str()), ("eu", "a"));
        assert_eq!(endpoint.metadata["version"], "v2");
    }

    #[test]
    fn a_path_alone_will_do() {
        let mut errors = Errors::default();
        let context = context("/etc/mesh".as_ref());
        let resolver = FileResolver::from_node(&Node::from(&json!("e.yaml")), &context, &mut errors);
        assert!(format!("{resolver:?}").contains("/etc/mesh/e.yaml") && errors.is_empty());
        assert!(FileResolver::from_node(&Node::from(&json!(7)), &context, &mut errors).is_none() && !errors.is_empty());
    }
}
