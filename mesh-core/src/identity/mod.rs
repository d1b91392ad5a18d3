//! Who a workload is, whom it trusts, and how a peer's certificate chain is judged.

mod bundle;
mod id;
mod principal;
mod signer;
mod source;
mod svid;
mod verify;

pub use bundle::{TrustBundle, TrustBundleSet};
pub use id::{SpiffeId, SpiffeIdError, TrustDomain, WorkloadPath};
pub use principal::{Peer, Principal};
pub use signer::{KeyError, SignatureScheme, Signer};
pub use source::{Identity, IdentityError, IdentitySource, IdentityUpdates};
pub use svid::X509Svid;
pub use verify::{PeerRole, SvidError, VerifiedSvid, verify_svid};
