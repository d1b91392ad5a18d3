//! Connections: made on demand, lost, found silent, made again - as the shipped pool does it, one for each server.

use std::time::Duration;

use mesh_core::config::{HttpVersion, PoolConfig};
use mesh_core::retry::FAIL_FAST;

use super::{Engine, Event, nanos};
use crate::model::call::End;
use crate::model::link::State;
use crate::model::server::Sent;

impl Engine<'_> {
    pub(super) fn send(&mut self, server: usize, sent: Sent) {
        let link = self.link(sent.process, server);
        let full = self.links[link].waiting.len() >= self.pool(link).max_pending;
        let of = &mut self.links[link];
        match of.state {
            State::Up => self.transmit(server, sent),
            State::Dialing if full => self.attempt_ended(sent, End::Overloaded),
            State::Dialing => of.waiting.push(sent),
            State::Down { failed_at: Some(at) } if self.now < at.saturating_add(nanos(FAIL_FAST)) => {
                self.attempt_ended(sent, End::Unreachable { sent: false });
            }
            State::Idle | State::Down { .. } => {
                of.waiting.push(sent);
                self.dial(link);
            }
        }
    }

    fn transmit(&mut self, server: usize, sent: Sent) {
        if self.stalls(sent.process, server) {
            self.watch(self.link(sent.process, server));
        }
        match self.scenario.servers[self.servers[server].group].latency {
            Duration::ZERO => self.delivered(server, sent),
            latency => self.after(latency, Event::Delivered { server, sent }),
        }
    }

    /// A round trip for TCP and one for TLS; a refusal takes the first alone.
    fn dial(&mut self, link: usize) {
        let (process, server) = self.ends(link);
        let latency = self.scenario.servers[self.servers[server].group].latency;
        self.links[link].turn(State::Dialing);
        let epoch = self.links[link].epoch;
        if self.stalls(process, server) {
            let timeout = self.pool(link).connect_timeout;
            self.after(timeout, Event::DialTimeout { link, epoch });
        } else if latency.is_zero() {
            self.dialed(link, epoch);
        } else {
            let trips = if self.servers[server].refuses() { 2 } else { 4 };
            self.after(latency * trips, Event::Dialed { link, epoch });
        }
    }

    pub(super) fn dialed(&mut self, link: usize, epoch: u32) {
        if self.links[link].epoch != epoch {
            return;
        }
        let (process, server) = self.ends(link);
        if self.stalls(process, server) {
            let timeout = self.pool(link).connect_timeout;
            self.after(timeout, Event::DialTimeout { link, epoch });
        } else if self.servers[server].refuses() {
            self.dial_failed(link);
        } else {
            self.links[link].turn(State::Up);
            self.links[link].heard = self.now;
            for sent in std::mem::take(&mut self.links[link].waiting) {
                if self.is_waited_for(sent) {
                    self.transmit(server, sent);
                }
            }
        }
    }

    pub(super) fn dial_timeout(&mut self, link: usize, epoch: u32) {
        if self.links[link].epoch == epoch {
            self.dial_failed(link);
        }
    }

    fn dial_failed(&mut self, link: usize) {
        self.links[link].failures = self.links[link].failures.saturating_add(1);
        self.down(link, Some(self.now));
        for sent in std::mem::take(&mut self.links[link].waiting) {
            self.attempt_ended(sent, End::Unreachable { sent: false });
        }
    }

    /// Out until a connect in the background succeeds.
    fn down(&mut self, link: usize, failed_at: Option<u64>) {
        let (process, _) = self.ends(link);
        self.links[link].turn(State::Down { failed_at });
        let (epoch, wait) = (self.links[link].epoch, self.links[link].patience(&self.processes[process].rng));
        self.after(wait, Event::Redial { link, epoch });
    }

    pub(super) fn redial(&mut self, link: usize, epoch: u32) {
        if self.links[link].epoch == epoch {
            self.dial(link);
        }
    }

    /// The connection broke, with all that was under way on it.
    fn broken(&mut self, link: usize) {
        let (process, server) = self.ends(link);
        self.down(link, None);
        for sent in self.awaited(process, server) {
            self.attempt_ended(sent, End::Unreachable { sent: true });
        }
    }

    /// Its server is gone.
    pub(super) fn reset(&mut self, link: usize) {
        if self.links[link].cut > 0 {
            return;
        }
        match self.links[link].state {
            State::Up => self.down(link, None),
            State::Dialing => self.dial_failed(link),
            State::Idle | State::Down { .. } => {}
        }
    }

    /// Its server asked it to go: it connects again at once, and finds nobody.
    pub(super) fn goaway(&mut self, link: usize) {
        if self.links[link].cut == 0 && self.links[link].state == State::Up {
            self.dial(link);
        }
    }

    /// Nothing gets through any more: pings will say so.
    pub(super) fn stalled(&mut self, link: usize) {
        let (process, server) = self.ends(link);
        if self.links[link].state == State::Up && !self.awaited(process, server).is_empty() {
            self.watch(link);
        }
    }

    /// A connect that hung gets its reply.
    pub(super) fn passable(&mut self, link: usize) {
        if self.links[link].state == State::Dialing {
            let epoch = self.links[link].epoch;
            self.dialed(link, epoch);
        }
    }

    fn watch(&mut self, link: usize) {
        if self.pool(link).http == HttpVersion::Http1 || std::mem::replace(&mut self.links[link].watched, true) {
            return;
        }
        let epoch = self.links[link].epoch;
        let patience = self.pool(link).ping_interval + self.pool(link).ping_timeout;
        self.after(patience, Event::Silence { link, epoch });
    }

    pub(super) fn silence(&mut self, link: usize, epoch: u32) {
        self.links[link].watched = false;
        let (process, server) = self.ends(link);
        let up = self.links[link].epoch == epoch && self.links[link].state == State::Up;
        if !up || !self.stalls(process, server) {
            return;
        }
        let patience = nanos(self.pool(link).ping_interval + self.pool(link).ping_timeout);
        let due = self.links[link].heard.saturating_add(patience);
        if due > self.now {
            self.links[link].watched = true;
            self.at(due, Event::Silence { link, epoch });
        } else if !self.awaited(process, server).is_empty() {
            self.broken(link);
        }
    }

    fn pool(&self, link: usize) -> &PoolConfig {
        let (process, server) = self.ends(link);
        &self.processes[process].clusters[self.servers[server].cluster].pool
    }
}
