//! `mesh policy diff`: which requests new policies decide in another way than old ones.

use std::path::PathBuf;

use clap::Args;
use mesh_core::config::ConfigError;
use serde::Serialize;
use serde_json::Value;

use super::judge::{self, RequestArgs, Row};
use super::{Policies, PolicyArgs};
use crate::answer::{Failure, Lines, Said};

#[derive(Debug, Args)]
#[command(
    after_help = "The lines of the input are those of `mesh policy eval`. Both sets of policies are read and judged under the same \
    options.\n\n\
    Each line of the output is {\"id\",\"old\",\"new\"}, for each request whose decision or status differ, in the order of the input. \
    `old` and `new` are {\"decision\",\"status\",\"policy\",\"rule\",\"reason\"}, as in `mesh policy eval`. Where only another rule \
    decides the same, nothing is said; nor of AUDIT policies and those under trial. The last line of the standard error counts them.\n\n\
    Exit codes: 0 no request differs, 1 some do, 2 a line, the policies or the command line is wrong, or something cannot be read."
)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    policies: PolicyArgs,
    /// The new policies: files and directories, like the old ones.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    new: Vec<PathBuf>,
    #[command(flatten)]
    requests: RequestArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a Value,
    old: Row<'a>,
    new: Row<'a>,
}

#[derive(Debug, Default)]
struct Count {
    requests: u64,
    opened: u64,
    closed: u64,
    others: u64,
    wrong: u64,
}

/// As `diff` and `cmp` have it: whoever asks must be able to tell a difference from a question that was wrong.
const TROUBLE: u8 = 2;

pub(super) fn run(args: &DiffArgs) -> Said {
    compare(args).unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        Said::Code(TROUBLE)
    })
}

fn compare(args: &DiffArgs) -> Result<Said, Failure> {
    let mut requests = args.requests.open()?;
    let judge = |loaded: Result<Policies, ConfigError>| loaded.and_then(|policies| requests.judge(&policies));
    let (old, new) = match (judge(args.policies.load()?), judge(args.policies.reading.load(&args.new)?)) {
        (Ok(old), Ok(new)) => (old, new),
        (old, new) => {
            [old.err(), new.err()].iter().flatten().for_each(|error| eprintln!("{error}"));
            return Ok(Said::Code(TROUBLE));
        }
    };
    let (mut lines, mut count) = (Lines::new(), Count::default());
    while let Some(request) = requests.next()? {
        count.requests += 1;
        let request = match request {
            Ok(request) => request,
            Err((_, reason)) => {
                count.wrong += 1;
                // Debug formatting: what a request holds must not be able to write into a terminal.
                eprintln!("line {}: {reason:?}", count.requests);
                continue;
            }
        };
        let (old, new) = (old.judge(&request), new.judge(&request));
        if (old.decision, old.status) == (new.decision, new.status) {
            continue;
        }
        let sum = match (old.decision, new.decision) {
            (_, "allow") => &mut count.opened,
            ("allow", _) => &mut count.closed,
            _ => &mut count.others,
        };
        *sum += 1;
        if !lines.say(true, &Line { id: judge::id(&request), old: old.row(), new: new.row() }) {
            break;
        }
    }
    lines.end();
    let Count { requests, opened, closed, others, wrong } = count;
    let differ = opened + closed + others;
    eprintln!(
        "{requests} requests: {differ} differ ({opened} allowed by the new policies alone, {closed} by the old ones alone, {others} \
         refused in another way), {wrong} wrong lines"
    );
    Ok(Said::Code(match (wrong, differ) {
        (0, 0) => 0,
        (0, _) => 1,
        _ => TROUBLE,
    }))
}
