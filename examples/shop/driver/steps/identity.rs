//! Who has no identity of the shop gets no connection; who has the wrong one gets no answer.

use mesh_core::identity::dev_ca::SvidPem;
use mesh_tower::{Client, ErrorKind};
use serde_json::Value;

use super::{Observed, Step};
use crate::Error;
use crate::driver::outsider::{forged, knock};
use crate::driver::town::Town;
use crate::driver::wait::until;

pub(crate) const STEP: Step =
    Step { title: "2 strangers are refused: in the handshake, or by policy", run: |town| Box::pin(run(town)) };

const WEB: &str = "spiffe://shop.example/ns/shop/sa/web";

async fn run(town: &mut Town) -> Result<Observed, Error> {
    let mut observed = Observed::default();
    town.audited(&["gateway"], |record| record["peer"] == WEB).await?; // of the step before
    let reached = town.layout.audit("gateway")?.len();
    let (expected, counted) = ("no client certificate: no handshake", "no_certificate");
    refused_in_handshake(town, &mut observed, None, expected, counted).await?;
    let (expected, counted) = ("web's name from another CA: no handshake", "bad_signature");
    refused_in_handshake(town, &mut observed, Some(forged(WEB)?), expected, counted).await?;

    let stranger = town.caller("stranger").await?;
    let status = stranger.order(Some(&town.tokens.token("gateway")?)).await?.status();
    let id = "spiffe://shop.example/ns/shop/sa/stranger";
    let record = town.audited(&["gateway"], |record| record["peer"] == id).await?;
    let reason = record.get("reason").and_then(Value::as_str).unwrap_or("nothing");
    let seen = format!("{status} for sa/stranger, audit says `{reason}`");
    observed.check("the right CA, the wrong ID: refused by policy", seen, status == 403 && reason == "no_allow_rule");
    let records = town.layout.audit("gateway")?.len();
    observed.check(
        "only the last of them was a request",
        format!("{} audit record(s) more", records - reached),
        records == reached + 1,
    );

    // The other way round: the same gateway, called by somebody who expects another.
    let impostor = Client::new(&stranger.mesh, "impostor")?;
    let (seen, refused) = match impostor.get("/").send().await {
        Ok(answer) => (format!("answered with {}", answer.status()), false),
        Err(error) => {
            let names = error.to_string().contains("spiffe://shop.example/ns/shop/sa/gateway");
            (format!("{}, and no request was sent", error.kind().as_str()), {
                error.kind() == ErrorKind::PeerIdentity && error.is_never_sent() && names
            })
        }
    };
    observed.check("a server with the wrong ID: its client refuses it", seen, refused);
    Ok(observed)
}

/// The outsider is told by a TLS alert, and the gateway counts why.
async fn refused_in_handshake(
    town: &Town,
    observed: &mut Observed,
    certificate: Option<SvidPem>,
    expected: &'static str,
    counted: &'static str,
) -> Result<(), Error> {
    let gateway = town.process("gateway")?;
    let label = format!("result=\"{counted}\"");
    let refusals = async || gateway.metric("mesh_server_handshakes_total", &[&label]).await;
    let before = refusals().await?;
    let answer = knock(gateway.at.address, certificate.as_ref()).await?;
    let told = match &answer {
        Ok(answer) => format!("answered: {}", answer.lines().next().unwrap_or_default()),
        Err(error) => error.clone(),
    };
    let alert = answer.is_err() && told.contains("fatal alert");
    let more = async || Ok((refusals().await? > before).then_some(()));
    let noted = until("the gateway's count", std::time::Duration::from_secs(2), more).await.is_ok();
    let reason = if noted { format!("gateway counts `{counted}`") } else { format!("gateway counts no `{counted}`") };
    observed.check(expected, format!("{told}; {reason}"), alert && noted);
    Ok(())
}
