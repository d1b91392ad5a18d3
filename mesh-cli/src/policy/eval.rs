//! `mesh policy eval`: what policies decide about many requests.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::PolicyArgs;
use super::judge::{self, Aside, RequestArgs, Row};
use crate::answer::{Failure, Lines, Said};

#[derive(Debug, Args)]
#[command(
    after_help = "Each line of the input is {\"id\":any,\"protocol\":\"http\"|\"grpc\"|\"tcp\",\"source\":{\"principal\":\"spiffe://...\",\
    \"ip\":\"...\"},\"remote_ip\":\"...\",\"destination\":{\"ip\":\"...\",\"port\":N},\"sni\":\"...\",\"method\":\"GET\",\"authority\":\
    \"host:port\",\"path\":\"/path?query\",\"route\":\"/{id}\",\"headers\":[[\"name\",\"value\"]],\"claims\":{...}}. What is absent or null \
    is unknown, the protocol http. On raw tcp, what only HTTP has is not looked at. Claims count as verified; where a \
    RequestAuthentication selects the workload, `iss`, and `aud` if it is given, must be among its rules, or the decision is deny, \
    the status 401, the reason token_unknown_issuer or token_wrong_audience.\n\n\
    Each line of the output is {\"id\",\"decision\",\"status\",\"policy\",\"rule\",\"reason\",\"dry_run\",\"dry_run_decision\"}, in the order \
    of the input; `audit` too, where AUDIT policies match. `decision` is allow, deny, reject (the request has no single reading) or error (the line \
    is wrong; `reason` names the field). `status` is what the mesh answers with: for http 403, 401 where only a token is missing, \
    400 for reject; for grpc 7, 16, 12; null for tcp, allow and error. `dry_run` holds the matching rules of policies under trial, \
    `dry_run_decision` the verdict if they were in force, null without any.\n\n\
    Exit codes: 0 every line was judged, 1 a line was wrong, or the policies are (then there is no output), 2 wrong command line, \
    3 cannot read."
)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    policies: PolicyArgs,
    #[command(flatten)]
    requests: RequestArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a Value,
    #[serde(flatten)]
    row: Row<'a>,
    #[serde(flatten)]
    aside: Aside<'a>,
}

pub(super) fn run(args: &EvalArgs) -> Result<Said, Failure> {
    let mut requests = args.requests.open()?;
    let judge = match args.policies.load()?.and_then(|policies| requests.judge(&policies)) {
        Ok(judge) => judge,
        Err(error) => {
            eprintln!("{error}");
            return Ok(Said::Lines { yes: false });
        }
    };
    let mut lines = Lines::new();
    while let Some(request) = requests.next()? {
        let still_read = match request {
            Ok(request) => {
                let judged = judge.judge(&request);
                lines.say(true, &Line { id: judge::id(&request), row: judged.row(), aside: judged.aside() })
            }
            Err((id, reason)) => lines.say(false, &Line { id: &id, row: Row::wrong(&reason), aside: Aside::NOTHING }),
        };
        if !still_read {
            break;
        }
    }
    Ok(lines.end())
}
