//! Every SVID is replaced while orders go on.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::config::HttpVersion;
use mesh_core::identity::SpiffeId;
use mesh_tower::tls::ClientTls;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Observed, Step};
use crate::Error;
use crate::driver::caller::{Caller, PATIENCE};
use crate::driver::load::Load;
use crate::driver::town::{PROCESSES, Town};
use crate::driver::wait::until;

pub(crate) const STEP: Step = Step { title: "6 all SVIDs rotate under load", run: |town| Box::pin(run(town)) };

/// Three lives of an SVID.
const LIMIT: Duration = Duration::from_secs(30);

/// Handshakes with everybody are work: not at every turn.
const LOOK: Duration = Duration::from_millis(200);

async fn run(town: &mut Town) -> Result<Observed, Error> {
    let mut observed = Observed::default();
    let web = town.caller("web").await?;
    let load = Load::start(&web, &town.tokens.token("gateway")?);
    let before = serials(town, &web).await?;
    let rotated = async || {
        sleep(LOOK).await;
        let now = serials(town, &web).await?;
        Ok(before.iter().all(|(name, serial)| now.get(name) != Some(serial)).then_some(now))
    };
    let (after, took) = until("every process to have a new serial", LIMIT, rotated).await?;
    let seen = format!("{} of {} new after {:.1} s", after.len(), before.len(), took.as_secs_f64());
    observed.check("a new connection to each carries a new serial", seen, after.len() == PROCESSES.len());
    if let (Some(old), Some(new)) = (before.get("gateway"), after.get("gateway")) {
        observed.check("for example gateway", format!("{} is now {}", short(old), short(new)), old != new);
    }

    // The connections between the services follow: orders hears the gateway with its new certificate.
    let old = before.get("gateway").cloned().unwrap_or_default();
    let id = "spiffe://shop.example/ns/shop/sa/gateway";
    let by_new = async || {
        let last = town.layout.audit("orders")?.into_iter().rev().find(|record| record["peer"] == id);
        let serial = last.and_then(|record| record.get("peer_serial")?.as_str().map(str::to_owned));
        Ok(serial.filter(|serial| *serial != old))
    };
    let (serial, _) = until("orders to be called with the new serial", LIMIT, by_new).await?;
    observed.check("gateway calls orders with a new one", format!("audit: {}", short(&serial)), true);

    let tally = load.end().await?;
    observed.check("0 failed requests", tally.text(), tally.failed.is_empty());
    Ok(observed)
}

/// The serial that each process shows in a new handshake.
async fn serials(town: &Town, web: &Caller) -> Result<BTreeMap<&'static str, String>, Error> {
    let mut serials = BTreeMap::new();
    for (name, role) in PROCESSES {
        let address = town.process(name)?.at.address;
        let id = SpiffeId::parse(&format!("spiffe://shop.example/ns/shop/sa/{}", role.name()))?;
        let tls = ClientTls::new(&web.mesh, vec![id], HttpVersion::Auto);
        let handshake = async { tls.handshake(TcpStream::connect(address).await?, address).await };
        let (_, peer) = timeout(PATIENCE, handshake).await.map_err(|_| format!("no handshake with {name}"))??;
        serials.insert(name, peer.svid.serial.clone());
    }
    Ok(serials)
}

fn short(serial: &str) -> String {
    serial.chars().take(8).collect()
}
