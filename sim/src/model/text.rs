//! A report for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::report::{Failed, Report};

/// Servers and ejections beyond this many are summed up.
const SHOWN: usize = 40;

/// The report as a page of text.
pub fn to_text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(report, &mut text);
    text
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let percent = |count: u64| 100.0 * count as f64 / report.offered.max(1) as f64;
    let seconds = report.duration.as_secs_f64();
    let rate = report.offered as f64 / seconds;
    writeln!(
        out,
        "seed {}: {} clients, {} servers, {seconds} s",
        report.seed,
        report.clients.len(),
        report.servers.len()
    )?;
    writeln!(out)?;
    writeln!(out, "offered    {:>12}   {rate:.0} a second", report.offered)?;
    writeln!(out, "succeeded  {:>12}   {:.3} %", report.succeeded, percent(report.succeeded))?;
    writeln!(out, "failed     {:>12}   {:.3} %", report.failed(), percent(report.failed()))?;
    for failed in Failed::ALL {
        if let Some(count) = report.failures.get(&failed) {
            writeln!(out, "  {:<22}{count:>12}", failed.name())?;
        }
    }
    writeln!(out, "retried    {:>12}   {:.3} %", report.retried, percent(report.retried))?;
    writeln!(out, "attempts   {:>12}", report.attempts)?;
    for (name, count) in [("budget_exhausted", report.budget_exhausted), ("panic_picks", report.panic_picks)] {
        if count > 0 {
            writeln!(out, "  {name:<22}{count:>12}")?;
        }
    }
    writeln!(out)?;
    let latency = &report.latency;
    writeln!(
        out,
        "latency    {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "mean", "p50", "p90", "p95", "p99", "p99.9", "max"
    )?;
    write!(out, "  ms      ")?;
    let quantiles = [0.5, 0.9, 0.95, 0.99, 0.999].map(|share| latency.quantile(share));
    for value in [latency.mean()].into_iter().chain(quantiles).chain([latency.max()]) {
        write!(out, " {:>9.3}", value.as_secs_f64() * 1e3)?;
    }
    writeln!(out, "\n")?;
    servers(report, out)?;
    faults(report, out)?;
    ejections(report, out)?;
    if !report.not_simulated.is_empty() {
        writeln!(out, "\nread, and without effect here: {}", report.not_simulated.join(", "))?;
    }
    Ok(())
}

fn servers(report: &Report, out: &mut String) -> std::fmt::Result {
    let width = report.servers.iter().map(|server| server.name.len()).max().unwrap_or(0).max(6);
    writeln!(
        out,
        "{:<width$} {:>12} {:>8} {:>12} {:>10} {:>10} {:>8}",
        "server", "requests", "share", "succeeded", "failed", "cancelled", "busiest"
    )?;
    for (index, server) in report.servers.iter().enumerate().take(SHOWN) {
        writeln!(
            out,
            "{:<width$} {:>12} {:>6.2} % {:>12} {:>10} {:>10} {:>8}",
            server.name,
            server.requests,
            100.0 * report.share(index),
            server.succeeded,
            server.failed,
            server.cancelled,
            server.busiest,
        )?;
    }
    more(report.servers.len(), out)
}

fn faults(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.faults.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{:<10} {:>10} {:>6} {:>12} {:>14}", "fault", "at", "times", "requests", "last request")?;
    for fault in report.faults.iter().take(SHOWN) {
        let last = if fault.requests == 0 { "none".to_owned() } else { format!("after {}", show(fault.last_request)) };
        writeln!(
            out,
            "{:<10} {:>10} {:>6} {:>12} {last:>14}",
            fault.kind,
            show(fault.at),
            fault.times,
            fault.requests
        )?;
    }
    more(report.faults.len(), out)
}

fn ejections(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.ejections.is_empty() {
        return writeln!(out, "\nno ejections");
    }
    writeln!(out, "\nejections: {}, at most {} at once", report.ejections.len(), report.most_out)?;
    for ejection in report.ejections.iter().take(SHOWN) {
        let name = |names: &[String], index: usize| names.get(index).cloned().unwrap_or_default();
        let server = report.servers.get(ejection.server).map_or("", |server| &server.name);
        writeln!(
            out,
            "{:>10}  {:<12} {server:<12} {:<22} until {}",
            show(ejection.at),
            name(&report.clients, ejection.client),
            ejection.reason,
            show(ejection.until),
        )?;
    }
    more(report.ejections.len(), out)
}

fn more(count: usize, out: &mut String) -> std::fmt::Result {
    match count.checked_sub(SHOWN) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(out, "... and {more} more (--json has all)"),
    }
}

fn show(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}
