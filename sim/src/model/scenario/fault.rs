//! `faults:` - what goes wrong, with whom and when.

use std::time::Duration;

use mesh_core::config::{Decode, Errors, Fields, Node, Percent, suggestion};

use super::server::NameList;

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// With whom: groups, or single servers.
    pub servers: Vec<String>,
    /// When it begins.
    pub at: Duration,
    /// How long it lasts; absent: to the end. A restart lasts as long as it says itself.
    pub lasts: Option<Duration>,
    /// Whether it comes again: this long after each beginning.
    pub every: Option<Duration>,
    /// What it is.
    pub kind: FaultKind,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultKind {
    /// The process is gone: connections break, new ones are refused at once.
    Crash,
    /// The process stands still: connections are accepted, and nothing is answered.
    Hang,
    /// Work that begins takes longer.
    Slow(Slow),
    /// Some requests are answered with an error.
    Errors {
        /// The share of requests, 0 to 1.
        rate: f64,
        /// The HTTP status.
        status: u16,
        /// How long such an answer takes; absent: as long as others.
        after: Option<Duration>,
        /// What the answer asks for before another attempt.
        retry_after: Option<Duration>,
    },
    /// Nothing passes between the servers and these clients, either way; of none that are named, all.
    Partition {
        /// Whole loads, or single clients.
        clients: Vec<String>,
    },
    /// It asks its clients to go, works off what it has, is gone, and comes back.
    Restart {
        /// How long it works off what it has.
        drain: Duration,
        /// How long it is gone.
        down: Duration,
    },
}

/// How slow.
#[derive(Debug, Clone, PartialEq)]
pub enum Slow {
    /// So many times as slow.
    Factor(f64),
    /// This long, whatever the service time was.
    To(Duration),
}

impl FaultKind {
    /// Its name in a file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::Slow(_) => "slow",
            Self::Errors { .. } => "errors",
            Self::Partition { .. } => "partition",
            Self::Restart { .. } => "restart",
        }
    }

    pub(super) fn clients(&self) -> &[String] {
        if let Self::Partition { clients } = self { clients } else { &[] }
    }
}

const KINDS: [&str; 6] = ["crash", "hang", "slow", "errors", "partition", "restart"];
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Decode for Fault {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let servers = fields.required::<NameList>("servers");
        let at = fields.within("at", Duration::ZERO, Duration::ZERO..=DAY);
        let (mut lasts, every) = (
            fields.optional_within("for", Duration::from_millis(1)..=DAY),
            fields.optional_within("every", Duration::from_millis(1)..=DAY),
        );
        let found: Vec<&'static str> = KINDS.into_iter().filter(|kind| fields.node(kind).is_some()).collect();
        let kind = match found.as_slice() {
            [kind] => fields.node(kind).and_then(|value| read_kind(kind, value, fields.errors())),
            found => {
                fields.error(format!("expected one of {}, found {}", KINDS.join(", "), found.len()));
                None
            }
        };
        if let Some(FaultKind::Restart { drain, down }) = &kind {
            if lasts.is_some() {
                let place = fields.place("for");
                fields.errors().push(&place, "a restart lasts as long as its `drain` and `down`: leave this out");
            }
            lasts = Some(*drain + *down);
        }
        if let Some(every) = every
            && lasts.is_none_or(|lasts| lasts >= every)
        {
            let place = fields.place("every");
            fields.errors().push(&place, "what comes again must be over before: give a `for` below `every`");
        }
        fields.finish();
        Some(Self { servers: servers?.0, at, lasts, every, kind: kind? })
    }
}

fn read_kind(kind: &str, node: &Node, errors: &mut Errors) -> Option<FaultKind> {
    let mut fields = Fields::of(node, errors)?;
    let kind = match kind {
        "crash" => Some(FaultKind::Crash),
        "hang" => Some(FaultKind::Hang),
        "slow" => {
            let factor = fields.optional_within("factor", 0.001..=1_000_000.0);
            let to = fields.optional_within("to", Duration::ZERO..=DAY);
            match (factor, to) {
                (Some(factor), None) => Some(FaultKind::Slow(Slow::Factor(factor))),
                (None, Some(to)) => Some(FaultKind::Slow(Slow::To(to))),
                _ => {
                    fields.error("expected either `factor: 3` or `to: 2s`");
                    None
                }
            }
        }
        "errors" => {
            let rate = fields.within("rate", Percent(1.0), Percent(0.0)..=Percent(1.0)).0;
            let status = fields.within("status", 503, 429..=599);
            if (430..500).contains(&status) {
                let place = fields.place("status");
                fields
                    .errors()
                    .push(&place, format!("{status} is no failure of a server: expected 429, or 500 to 599"));
            }
            let after = fields.optional_within("after", Duration::ZERO..=DAY);
            let retry_after = fields.optional_within("retry_after", Duration::ZERO..=300 * SECOND);
            Some(FaultKind::Errors { rate, status, after, retry_after })
        }
        "partition" => {
            let clients = fields.optional::<NameList>("clients").unwrap_or_default().0;
            Some(FaultKind::Partition { clients })
        }
        "restart" => {
            let drain = fields.within("drain", 5 * SECOND, Duration::ZERO..=DAY);
            let down = fields.within("down", 2 * SECOND, Duration::ZERO..=DAY);
            Some(FaultKind::Restart { drain, down })
        }
        other => {
            fields.error(format!("unknown kind of fault{}", suggestion(other, KINDS)));
            None
        }
    };
    fields.finish();
    kind
}
