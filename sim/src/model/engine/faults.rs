//! What goes wrong begins, turns and ends.

use super::{Engine, Event, nanos};
use crate::model::scenario::FaultKind;

impl Engine<'_> {
    fn befallen(&self, fault: usize) -> Vec<usize> {
        let names = &self.scenario.faults[fault].servers;
        let mut servers: Vec<usize> = names.iter().flat_map(|name| self.scenario.servers_called(name)).collect();
        servers.sort_unstable();
        servers.dedup();
        servers
    }

    fn links_to(&self, server: usize) -> Vec<usize> {
        (0..self.processes.len()).map(|process| self.link(process, server)).collect()
    }

    /// The links that a partition cuts.
    fn cut_links(&self, server: usize, clients: &[String]) -> Vec<usize> {
        if clients.is_empty() {
            return self.links_to(server);
        }
        let mut processes: Vec<usize> = clients.iter().flat_map(|name| self.scenario.clients_called(name)).collect();
        processes.sort_unstable();
        processes.dedup();
        processes.into_iter().map(|process| self.link(process, server)).collect()
    }

    pub(super) fn fault_begins(&mut self, fault: usize) {
        let scenario = self.scenario;
        let of = &scenario.faults[fault];
        if self.now >= nanos(scenario.duration) {
            return;
        }
        if let Some(every) = of.every {
            self.after(every, Event::FaultBegins(fault));
        }
        if let Some(lasts) = of.lasts {
            self.after(lasts, Event::FaultEnds(fault));
        }
        let report = &mut self.report.faults[fault];
        report.times += 1;
        report.at = std::time::Duration::from_nanos(self.now);
        for server in self.befallen(fault) {
            self.servers[server].faults.push(fault);
            match &of.kind {
                FaultKind::Crash => self.goes_down(server),
                FaultKind::Hang => {
                    self.servers[server].hung += 1;
                    self.links_to(server).into_iter().for_each(|link| self.stalled(link));
                }
                FaultKind::Partition { clients } => {
                    for link in self.cut_links(server, clients) {
                        self.links[link].cut += 1;
                        self.stalled(link);
                    }
                }
                FaultKind::Restart { .. } => {
                    self.servers[server].draining += 1;
                    self.links_to(server).into_iter().for_each(|link| self.goaway(link));
                }
                FaultKind::Slow(_) | FaultKind::Errors { .. } => {}
            }
        }
        if let FaultKind::Restart { drain, .. } = &of.kind {
            self.after(*drain, Event::FaultTurns(fault));
        }
    }

    fn goes_down(&mut self, server: usize) {
        self.servers[server].down += 1;
        if self.servers[server].down == 1 {
            self.links_to(server).into_iter().for_each(|link| self.reset(link));
            self.killed(server);
        }
    }

    pub(super) fn fault_turns(&mut self, fault: usize) {
        self.befallen(fault).into_iter().for_each(|server| self.goes_down(server));
    }

    pub(super) fn fault_ends(&mut self, fault: usize) {
        for server in self.befallen(fault) {
            let of = &mut self.servers[server];
            if let Some(at) = of.faults.iter().position(|active| *active == fault) {
                of.faults.remove(at);
            }
            match &self.scenario.faults[fault].kind {
                FaultKind::Crash => of.down -= 1,
                FaultKind::Hang => {
                    of.hung -= 1;
                    self.released(server);
                    self.links_to(server).into_iter().for_each(|link| self.passable(link));
                }
                FaultKind::Partition { clients } => {
                    let links = self.cut_links(server, clients);
                    links.iter().for_each(|link| self.links[*link].cut -= 1);
                    self.released(server);
                    links.into_iter().for_each(|link| self.passable(link));
                }
                FaultKind::Restart { .. } => {
                    of.down -= 1;
                    of.draining -= 1;
                }
                FaultKind::Slow(_) | FaultKind::Errors { .. } => {}
            }
        }
    }
}
