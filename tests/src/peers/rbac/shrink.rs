//! From a difference to the smallest policies that still show it.

use std::path::Path;

use serde_json::Value;

use super::generate::PolicySet;
use super::judge::Engines;
use super::run::World;
use super::translate::filters;
use super::{Difference, compare};

/// Leaves out one part after the other, as long as the difference stays.
pub(super) async fn smallest(binary: &Path, world: &World, found: &Difference) -> Difference {
    let mut smallest = found.clone();
    for _ in 0..30 {
        let sets: Vec<PolicySet> =
            variants(&smallest.set).into_iter().filter(|set| Engines::of(set).is_some()).collect();
        let sent: Vec<_> = (0..sets.len())
            .map(|set| {
                let mut sent = found.sent.clone();
                (sent.set, sent.connection) = (set, 0);
                (sent, found.token.clone())
            })
            .collect();
        let connections = [found.connection.clone()];
        let mut still = compare(binary, world, &sets, &connections, &sent, filters).await.unexplained;
        still.retain(|other| other.against == found.against);
        let Some(next) = still.into_iter().next() else { break };
        smallest = next;
    }
    smallest
}

/// The set without one document, or without one part of one.
fn variants(set: &PolicySet) -> Vec<PolicySet> {
    let with = |documents: Vec<Value>| PolicySet { documents, ..set.clone() };
    let mut all = Vec::new();
    for (at, document) in set.documents.iter().enumerate() {
        let mut without = set.documents.clone();
        without.remove(at);
        all.push(with(without));
        for rules in smaller(&document["spec"]["rules"]) {
            let mut documents = set.documents.clone();
            documents[at]["spec"]["rules"] = rules;
            all.push(with(documents));
        }
    }
    all
}

/// The value without one of its parts, at any depth.
fn smaller(value: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    match value {
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let mut without = items.clone();
                without.remove(at);
                all.push(without.into());
                for part in smaller(item) {
                    let mut items = items.clone();
                    items[at] = part;
                    all.push(items.into());
                }
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields.iter().filter(|(name, _)| *name != "key") {
                let mut without = fields.clone();
                without.remove(name);
                all.push(without.into());
                for part in smaller(field) {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), part);
                    all.push(fields.into());
                }
            }
        }
        _ => {}
    }
    all
}
