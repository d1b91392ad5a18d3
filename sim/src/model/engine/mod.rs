//! The heap, the clock, and the arrivals. What happens at each event is beside it, in the files below.
#![allow(clippy::indexing_slicing)] // positions of servers, links and processes are made here and live as long as the run

mod calls;
mod connections;
mod faults;
mod serving;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use mesh_core::rng::Rng;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::balancer::Balancer;
use super::call::{Call, Origin};
use super::link::Link;
use super::process::Process;
use super::report::{FaultReport, Report, ServerReport};
use super::scenario::{Arrivals, Load, Scenario};
use super::server::{Answer, Sent, Server};
use super::slab::{Id, Slab};

/// What happens at a time.
#[derive(Debug, Clone, Copy)]
enum Event {
    Arrival {
        load: usize,
    },
    /// The time of the whole call is over.
    Deadline(Id),
    /// The time of one attempt is over.
    Limit {
        call: Id,
        attempt: u32,
    },
    Retry {
        call: Id,
        attempt: u32,
    },
    /// A request reaches its server.
    Delivered {
        server: usize,
        sent: Sent,
    },
    /// A server has done its own work.
    Done {
        server: usize,
        job: Id,
    },
    /// An answer reaches its caller.
    Answered {
        sent: Sent,
        answer: Answer,
    },
    FaultBegins(usize),
    /// A restart has drained.
    FaultTurns(usize),
    FaultEnds(usize),
    /// The reply to a connect is there, or its time is up.
    Dialed {
        link: usize,
        epoch: u32,
    },
    DialTimeout {
        link: usize,
        epoch: u32,
    },
    Redial {
        link: usize,
        epoch: u32,
    },
    /// A ping would have been unanswered for too long.
    Silence {
        link: usize,
        epoch: u32,
    },
}

struct Timed {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct Engine<'s> {
    scenario: &'s Scenario,
    /// Its clock stands still, and is moved for tower alone.
    runtime: &'s Runtime,
    moves_clock: bool,
    start: Instant,
    /// Nanoseconds since the start.
    now: u64,
    queue: BinaryHeap<Reverse<Timed>>,
    order: u64,
    /// One source for each purpose, so that what one arm of a comparison decides does not change what befalls it.
    arrivals: Rng,
    work: Rng,
    processes: Vec<Process>,
    servers: Vec<Server>,
    /// Of each process to each server.
    links: Vec<Link>,
    calls: Slab<Call>,
    calls_made: u64,
    report: Report,
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Plays a scenario. The same seed gives the same run, to the last decision.
///
/// Not to be called inside a tokio runtime: it has one of its own, whose clock stands still.
///
/// # Panics
///
/// If a runtime without threads and sockets cannot be made.
#[allow(clippy::expect_used)] // see above
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime without threads and sockets");
    let _entered = runtime.enter();
    let mut engine = Engine::new(scenario, &runtime, seed);
    engine.play();
    engine.finish()
}

impl<'s> Engine<'s> {
    fn new(scenario: &'s Scenario, runtime: &'s Runtime, seed: u64) -> Self {
        let (seeds, start) = (Rng::seeded(seed), Instant::now());
        let (arrivals, work) = (seeds.fork(), seeds.fork());
        let names = scenario.server_names();
        let groups = scenario.servers.iter().enumerate().flat_map(|(group, of)| std::iter::repeat_n(group, of.count));
        let named: Vec<(String, usize)> = names.iter().cloned().zip(groups).collect();
        let clients = scenario.clients();
        let processes: Vec<Process> =
            clients.iter().map(|_| Process::new(scenario, &named, seeds.fork(), start)).collect();
        let mut callers = scenario.load.iter().map(|load| load.clients).sum::<usize>()..;
        let servers = named.iter().map(|(_, group)| {
            let of = &scenario.servers[*group];
            // A checked scenario names a cluster that there is.
            let cluster = scenario.config.clusters.keys().position(|name| *name == of.cluster).unwrap_or_default();
            Server::new(*group, cluster, if of.calls.is_some() { callers.next() } else { None })
        });
        let servers: Vec<Server> = servers.collect();
        let mut links = Vec::with_capacity(processes.len() * servers.len());
        for process in &processes {
            let mut readiness = vec![None; servers.len()];
            for known in &process.clusters {
                let Balancer::Mesh(cluster) = &known.balancer else { continue };
                for state in cluster.endpoints().iter() {
                    readiness[state.transport().server] = Some(state.transport().readiness.clone());
                }
            }
            links.extend(readiness.into_iter().map(Link::new));
        }
        let is_tower = |known: &super::process::Known| matches!(known.balancer, Balancer::Tower(_));
        let moves_clock = processes.iter().flat_map(|process| &process.clusters).any(is_tower);
        let report = Report {
            seed,
            duration: scenario.duration,
            clients,
            servers: names.into_iter().map(|name| ServerReport { name, ..ServerReport::default() }).collect(),
            faults: (scenario.faults.iter())
                .map(|fault| FaultReport { kind: fault.kind.name(), at: fault.at, ..FaultReport::default() })
                .collect(),
            not_simulated: scenario.not_simulated(),
            decisions: 0xCBF2_9CE4_8422_2325,
            ..Report::default()
        };
        Self {
            scenario,
            runtime,
            moves_clock,
            start,
            now: 0,
            queue: BinaryHeap::new(),
            order: 0,
            arrivals,
            work,
            processes,
            servers,
            links,
            calls: Slab::default(),
            calls_made: 0,
            report,
        }
    }

    fn play(&mut self) {
        for (load, of) in self.scenario.load.iter().enumerate() {
            self.now = nanos(of.from);
            self.next_arrival(load);
        }
        for (fault, of) in self.scenario.faults.iter().enumerate() {
            self.now = 0;
            self.after(of.at, Event::FaultBegins(fault));
        }
        self.now = 0;
        while let Some(Reverse(Timed { at, event, .. })) = self.queue.pop() {
            if self.moves_clock && at > self.now {
                self.runtime.block_on(tokio::time::advance(Duration::from_nanos(at - self.now)));
            }
            self.now = at;
            self.happens(event);
            // What is left are faults and reconnects that nobody waits for.
            if self.report.offered == self.report.succeeded + self.report.failed()
                && at >= nanos(self.scenario.duration)
            {
                return;
            }
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrival { load } => self.arrives(load),
            Event::Deadline(call) => self.deadline(call),
            Event::Limit { call, attempt } => self.limit(call, attempt),
            Event::Retry { call, attempt } => self.retry(call, attempt),
            Event::Delivered { server, sent } => self.delivered(server, sent),
            Event::Done { server, job } => self.done(server, job),
            Event::Answered { sent, answer } => self.answered(sent, answer),
            Event::FaultBegins(fault) => self.fault_begins(fault),
            Event::FaultTurns(fault) => self.fault_turns(fault),
            Event::FaultEnds(fault) => self.fault_ends(fault),
            Event::Dialed { link, epoch } => self.dialed(link, epoch),
            Event::DialTimeout { link, epoch } => self.dial_timeout(link, epoch),
            Event::Redial { link, epoch } => self.redial(link, epoch),
            Event::Silence { link, epoch } => self.silence(link, epoch),
        }
    }

    fn finish(mut self) -> Report {
        for process in &self.processes {
            for known in &process.clusters {
                if let Balancer::Mesh(cluster) = &known.balancer {
                    self.report.panic_picks += cluster.metrics().panic_picks.get();
                }
            }
        }
        self.report
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_nanos(self.now)
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now.saturating_add(nanos(wait)), event);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Timed { at, order: self.order, event }));
    }

    fn next_arrival(&mut self, load: usize) {
        let Load { rate, arrivals, .. } = self.scenario.load[load];
        let seconds = match arrivals {
            Arrivals::Poisson => -(1.0 - self.arrivals.unit()).ln() / rate,
            Arrivals::Fixed => 1.0 / rate,
        };
        let at = self.now.saturating_add((seconds * 1e9) as u64);
        if at < nanos(self.scenario.load[load].until(self.scenario.duration)) {
            self.at(at, Event::Arrival { load });
        }
    }

    fn arrives(&mut self, load: usize) {
        let scenario = self.scenario;
        let of = &scenario.load[load];
        let first: usize = scenario.load[..load].iter().map(|load| load.clients).sum();
        let process = first + self.arrivals.below(of.clients);
        // A hash for a key: SplitMix64 gives one that is spread evenly.
        let hash = (of.keys > 0).then(|| Rng::seeded(self.arrivals.below(of.keys) as u64).next_u64());
        self.report.offered += 1;
        self.report.second(self.now).offered += 1;
        self.begin(Origin::Load, process, (&of.service, &of.method, &of.path), hash, None);
        self.next_arrival(load);
    }

    fn link(&self, process: usize, server: usize) -> usize {
        process * self.servers.len() + server
    }

    /// The process and server of a link.
    fn ends(&self, link: usize) -> (usize, usize) {
        (link / self.servers.len(), link % self.servers.len())
    }

    /// Nothing passes, and nobody says so.
    fn stalls(&self, process: usize, server: usize) -> bool {
        self.links[self.link(process, server)].cut > 0 || self.servers[server].hung > 0
    }
}
