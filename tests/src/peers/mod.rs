//! Real peers on the other side of the wire, which know nothing of this mesh.
//!
//! They are found below `MESH_PEERS` (`cargo xtask peers`) or in the `PATH`; where nobody demands them, a missing one
//! leaves its tests out and says so.

mod dns;
mod envoy;
mod envoy_process;
mod gateway;
mod nginx;
mod oidc;
mod openssl;
mod paths;
mod process;
mod rbac;
mod sds;
mod sds_rotation;

use std::net::SocketAddr;

use mesh_core::Mesh;
use mesh_core::config::{ClusterConfig, HttpVersion, PlugConfig};
use mesh_core::identity::SpiffeId;
use mesh_tower::test_util::RunningTestMesh;
use serde_json::json;

/// A caller that policies allow.
const WEB: &str = "spiffe://test/ns/test/sa/web";
/// One of the same authority that they do not.
const BATCH: &str = "spiffe://test/ns/test/sa/batch";
const PAYMENTS: &str = "spiffe://test/ns/test/sa/payments";

/// Lets [`WEB`] call.
const ALLOW_WEB: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: callers, namespace: test }
spec:
  rules: [ { from: [ { source: { principals: [test/ns/test/sa/web] } } ] } ]
"#;

/// A mesh of `id` in which the peer at `address` is called `payments` and expected to be `identity`.
async fn caller(mesh: &RunningTestMesh, id: &str, address: SocketAddr, identity: &str, http: HttpVersion) -> Mesh {
    let discover = PlugConfig::new("static", &json!([address.to_string()]));
    let identity = SpiffeId::parse(identity).unwrap();
    let edit = move |config: &mut mesh_core::Config| {
        let mut cluster = ClusterConfig::new(discover.clone(), vec![identity.clone()]);
        cluster.pool.http = http;
        config.clusters.insert("payments".to_owned(), cluster);
    };
    mesh.mesh_with(id, edit).await.unwrap()
}
