//! A policy file is broken; nothing changes but what the operator hears.

use std::time::Duration;

use super::{Observed, Step};
use crate::Error;
use crate::driver::town::Town;
use crate::driver::wait::until;
use crate::role::{Role, write_whole};

pub(crate) const STEP: Step = Step { title: "8 a policy file is broken", run: |town| Box::pin(run(town)) };

/// Istio's field and what a slip of the finger makes of it.
const FIELD: &str = "requestPrincipals:";
const SLIP: &str = "requestPrincipal:";
const LIMIT: Duration = Duration::from_secs(10);

async fn run(town: &mut Town) -> Result<Observed, Error> {
    let mut observed = Observed::default();
    let file = town.layout.policy("gateway", Role::Gateway);
    let good = std::fs::read_to_string(&file)?;
    let generation = town.process("gateway")?.metric("mesh_config_generation", &[]).await?;
    write_whole(&file, &good.replace(FIELD, SLIP))?;
    until_stale(town, true).await?;
    let still = town.process("gateway")?.metric("mesh_config_generation", &[]).await?;
    let seen = format!("generation {generation} stays, the gateway says that it is stale");
    observed.check("reload refuses it", seen, generation == still);

    let token = town.tokens.token("gateway")?;
    let (web, partner) = (town.caller("web").await?, town.caller("partner").await?);
    let statuses = [
        web.order(Some(&token)).await?.status(),
        web.order(None).await?.status(),
        partner.order(Some(&token)).await?.status(),
    ];
    let [good_token, no_token, revoked] = statuses;
    let seen = format!("web {good_token}, without a token {no_token}, revoked partner {revoked}");
    observed.check("the last good one stays in force", seen, statuses == [200, 401, 403]);

    // What the command prints.
    let answer = mesh_core::check(town.layout.config("gateway")).await;
    let issues = answer.as_ref().err().map(|error| error.issues()).unwrap_or_default();
    let line = good.lines().position(|line| line.contains(FIELD)).map_or(0, |at| at + 1);
    let exact = matches!(issues, [issue] if {
        issue.place.file.ends_with("policies/gateway.yaml")
            && usize::try_from(issue.place.line)? == line
            && issue.place.path.contains("spec.rules[0].from[0].source")
    });
    let root = format!("{}/", town.layout.root().display());
    let said = issues.iter().map(|issue| issue.to_string().replace(&root, "")).collect::<Vec<_>>().join("; ");
    observed.check("`mesh check` names file, line and field", said, exact);

    write_whole(&file, &good)?;
    until_stale(town, false).await?;
    let now = town.process("gateway")?.metric("mesh_config_generation", &[]).await?;
    observed.check("mended, it is taken again", format!("generation {now}"), now > generation);
    Ok(observed)
}

async fn until_stale(town: &Town, stale: bool) -> Result<(), Error> {
    let wanted = if stale { 1.0 } else { 0.0 };
    let ask = async || Ok((town.process("gateway")?.metric("mesh_config_stale", &[]).await? == wanted).then_some(()));
    until("the gateway to look at its policies", LIMIT, ask).await.map(drop)
}
