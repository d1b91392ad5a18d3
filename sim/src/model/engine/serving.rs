//! What servers do with requests.

use std::time::Duration;

use super::{Engine, Event};
use crate::model::call::{End, Origin};
use crate::model::scenario::{FaultKind, Slow};
use crate::model::server::{Answer, Job, Sent};
use crate::model::slab::Id;

impl Engine<'_> {
    pub(super) fn delivered(&mut self, server: usize, sent: Sent) {
        if !self.is_waited_for(sent) {
            return;
        }
        if self.stalls(sent.process, server) {
            self.servers[server].unread.push(sent);
            return;
        }
        if self.servers[server].down > 0 {
            return self.attempt_ended(sent, End::Unreachable { sent: true });
        }
        let group = &self.scenario.servers[self.servers[server].group];
        let of = &mut self.servers[server];
        let free = group.concurrency.is_none_or(|places| of.running < places);
        if !free && of.waiting >= group.queue {
            return self.reply(server, sent, Answer::status(503));
        }
        let job = of.jobs.insert(Job { sent, running: free, answer: Answer::OK, nested: None });
        self.accepted(sent, job);
        if free {
            self.servers[server].running += 1;
            self.work_on(server, job);
        } else {
            let of = &mut self.servers[server];
            of.queue.push_back(job);
            of.waiting += 1;
        }
    }

    /// Decides how long it takes, and what comes of it.
    fn work_on(&mut self, server: usize, job: Id) {
        let scenario = self.scenario;
        let of = &self.servers[server];
        let mut time = scenario.servers[of.group].service_time.sample(&self.work);
        let mut answer = Answer::OK;
        for fault in &of.faults {
            match &scenario.faults[*fault].kind {
                FaultKind::Slow(Slow::Factor(factor)) => time = time.mul_f64(*factor),
                FaultKind::Slow(Slow::To(to)) => time = *to,
                FaultKind::Errors { rate, status, after, retry_after } if self.work.unit() < *rate => {
                    answer = Answer { retry_after: *retry_after, ..Answer::status(*status) };
                    time = after.unwrap_or(time);
                }
                _ => {}
            }
        }
        if let Some(job) = self.servers[server].jobs.get_mut(job) {
            job.answer = answer;
        }
        self.after(time, Event::Done { server, job });
    }

    pub(super) fn done(&mut self, server: usize, job: Id) {
        let of = &mut self.servers[server];
        let Some(held) = of.jobs.get(job) else { return };
        if of.hung > 0 {
            of.held.push(job);
            return;
        }
        let (sent, answer, process) = (held.sent, held.answer, of.process);
        let calls = self.scenario.servers[of.group].calls.as_deref();
        let (Some(service), Some(process), true) = (calls, process, answer == Answer::OK) else {
            return self.completed(server, job, answer);
        };
        // What is left of the caller's own time is all that there is.
        let by = self.calls.get(sent.call).and_then(|call| call.current.as_ref()).map(|attempt| attempt.limit);
        let nested = self.begin(Origin::Server { server, job }, process, (service, "GET", "/"), None, by);
        if let Some(job) = self.servers[server].jobs.get_mut(job) {
            job.nested = nested;
        }
    }

    pub(super) fn completed(&mut self, server: usize, job: Id, answer: Answer) {
        let Some(Job { sent, .. }) = self.servers[server].jobs.remove(job) else { return };
        self.place_free(server);
        self.reply(server, sent, answer);
    }

    fn place_free(&mut self, server: usize) {
        let of = &mut self.servers[server];
        of.running -= 1;
        while let Some(next) = of.queue.pop_front() {
            if let Some(job) = of.jobs.get_mut(next) {
                job.running = true;
                of.waiting -= 1;
                of.running += 1;
                return self.work_on(server, next);
            }
        }
    }

    pub(super) fn reply(&mut self, server: usize, sent: Sent, answer: Answer) {
        let link = self.link(sent.process, server);
        if self.links[link].cut > 0 {
            self.servers[server].unheard.push((sent, answer));
            return;
        }
        match self.scenario.servers[self.servers[server].group].latency {
            Duration::ZERO => self.answered(sent, answer),
            latency => self.after(latency, Event::Answered { sent, answer }),
        }
    }

    /// Its caller is gone.
    pub(super) fn give_up(&mut self, server: usize, job: Id) {
        let of = &mut self.servers[server];
        let group = &self.scenario.servers[of.group];
        let begun = of.jobs.get(job).is_some_and(|job| job.running);
        if if begun { group.finishes_cancelled } else { group.begins_cancelled } {
            return;
        }
        let Some(job) = of.jobs.remove(job) else { return };
        if let Some(nested) = job.nested {
            self.cancel(nested);
        }
        if job.running {
            self.place_free(server);
        } else {
            self.servers[server].waiting -= 1;
        }
    }

    /// The process is gone, with all that it had.
    pub(super) fn killed(&mut self, server: usize) {
        let of = &mut self.servers[server];
        let jobs: Vec<Job> = of.jobs.ids().into_iter().filter_map(|id| of.jobs.remove(id)).collect();
        let (unread, unheard) = (std::mem::take(&mut of.unread), std::mem::take(&mut of.unheard));
        (of.running, of.waiting) = (0, 0);
        of.queue.clear();
        of.held.clear();
        for nested in jobs.iter().filter_map(|job| job.nested) {
            self.cancel(nested);
        }
        let unheard = unheard.into_iter().map(|(sent, _)| sent);
        for sent in jobs.into_iter().map(|job| job.sent).chain(unread).chain(unheard) {
            // Whom a partition keeps from hearing of it waits on.
            let link = self.link(sent.process, server);
            if self.links[link].cut == 0 {
                self.attempt_ended(sent, End::Unreachable { sent: true });
            }
        }
    }

    /// Something may get through again.
    pub(super) fn released(&mut self, server: usize) {
        let of = &mut self.servers[server];
        let (unread, held) = (std::mem::take(&mut of.unread), std::mem::take(&mut of.held));
        let unheard = std::mem::take(&mut of.unheard);
        for job in held {
            self.done(server, job);
        }
        for (sent, answer) in unheard {
            self.reply(server, sent, answer);
        }
        for sent in unread {
            self.delivered(server, sent);
        }
    }

    /// The requests of a process that a server has, or that are on their way.
    pub(super) fn awaited(&self, process: usize, server: usize) -> Vec<Sent> {
        let of = &self.servers[server];
        let jobs = of.jobs.ids().into_iter().filter_map(|id| of.jobs.get(id)).map(|job| job.sent);
        let sent = jobs.chain(of.unread.iter().copied()).chain(of.unheard.iter().map(|(sent, _)| *sent));
        sent.filter(|sent| sent.process == process && self.is_waited_for(*sent)).collect()
    }
}
