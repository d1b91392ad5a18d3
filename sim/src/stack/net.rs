//! A simulated network below the real stack: listener, connector, calendar, and the identity of every workload.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_core::clock::WallClock;
use mesh_core::identity::{Identity, SpiffeId, TrustBundle, TrustBundleSet, TrustDomain, X509Svid};
use mesh_tower::accept::Accept;
use mesh_tower::connect::{BoxIo, Connecting, Connector};
use turmoil::net::{TcpListener, TcpStream};

use super::Fault;

/// Where every server listens.
pub(super) const PORT: u16 = 8443;

/// When each simulation begins: 2027-01-01T00:00:00Z.
const EPOCH: Duration = Duration::from_secs(1_798_761_600);

/// A workload's time: that of the simulation.
#[derive(Debug)]
pub(super) struct Calendar;

impl Calendar {
    pub(super) fn epoch() -> SystemTime {
        UNIX_EPOCH + EPOCH
    }
}

impl WallClock for Calendar {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + turmoil::since_epoch().unwrap_or(EPOCH)
    }
}

/// Opens connections of the simulated network.
#[derive(Debug)]
pub(super) struct Dialler;

impl Connector for Dialler {
    fn connect(&self, address: SocketAddr) -> Connecting {
        Box::pin(async move { Ok(Box::new(TcpStream::connect(address).await?) as BoxIo) })
    }
}

/// Accepts connections of the simulated network.
pub(super) struct Listener(TcpListener);

impl Listener {
    pub(super) async fn bind() -> io::Result<Self> {
        Ok(Self(TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT)).await?))
    }
}

impl Accept for Listener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Who every workload is. The certificates are Ed25519, whose signatures have one length, and fixed, so that a run is the
/// same to the byte count of each handshake.
pub(super) fn node() -> Result<(TrustDomain, SpiffeId, Identity), Fault> {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    let domain = TrustDomain::parse("sim")?;
    let identity = match IDENTITY.get() {
        Some(identity) => identity.clone(),
        None => {
            let svid = X509Svid::from_pem(include_bytes!("pki/node.pem"), include_bytes!("pki/node.key.pem"))?;
            let bundle = TrustBundle::from_pem(domain.clone(), include_bytes!("pki/ca.pem"))?;
            let identity = Identity { svids: vec![Arc::new(svid)], bundles: Arc::new(TrustBundleSet::of(bundle)) };
            IDENTITY.get_or_init(|| identity).clone()
        }
    };
    let id = SpiffeId::for_workload(&domain, "sim", "node")?;
    Ok((domain, id, identity))
}
