//! Who a workload is, whom it trusts, and how a peer's certificate chain is judged.
//!
//! Every later decision stands on one question: who is at the other end? The answer is a [`SpiffeId`] that an authority
//! of *its own* trust domain vouches for, or none at all. There is no fallback to other names in a certificate, to
//! headers, or to addresses. Only a gateway that the configuration pins may name somebody else, who is then shown with
//! the gateway beside it.
//!
//! | to | use |
//! |---|---|
//! | read a name | [`SpiffeId`], [`TrustDomain`] |
//! | judge a peer | [`verify_svid`], [`TrustBundleSet`] |
//! | present oneself | [`X509Svid`], with a [`Signer`] such as [`PrivateKey`] |
//! | read whom a gateway names | [`forwarded_identity`] |
//! | get and renew both | an [`IdentitySource`]: [`FilesSource`], [`MemorySource`], `dev_ca::DevCaSource` |
//! | know when to renew | [`Renewal`] |
//! | say who called | [`Peer`] (a connection), [`Principal`] (a request) |

#[cfg(test)]
mod attacks;
mod bundle;
mod certificate;
#[cfg(feature = "dev-ca")]
pub mod dev_ca;
mod error;
mod files;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod forge;
mod forwarded;
mod id;
mod key;
mod memory;
mod principal;
mod refresh;
mod renewal;
mod signer;
mod source;
mod svid;
#[cfg(test)]
pub(crate) mod testkit;
mod verify;

pub use bundle::{BundleError, TrustBundle, TrustBundleSet};
pub use error::SvidError;
pub use files::{FilesConfig, FilesSource};
pub use forwarded::{ForwardedError, MAX_FORWARDED, forwarded_identity};
pub use id::{SpiffeId, SpiffeIdError, TrustDomain, WorkloadPath};
pub use key::PrivateKey;
pub use memory::MemorySource;
pub use principal::{Peer, Principal};
pub use refresh::{Looked, Looks, Watcher};
pub use renewal::Renewal;
pub use signer::{KeyError, SignatureScheme, Signer};
pub use source::{Identity, IdentityError, IdentitySource, IdentityUpdates};
pub use svid::X509Svid;
pub(crate) use verify::leaf_public_key;
pub use verify::{PeerRole, VerifiedSvid, check_leaf, claimed_id, verify_svid};
