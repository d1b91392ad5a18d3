//! A secret discovery server, as an agent beside Envoy is one: what is published reaches Envoy at once.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use mesh_core::identity::dev_ca::SvidPem;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

mod generated {
    #![allow(missing_docs, unreachable_pub)]
    tonic::include_proto!("envoy.service.secret.v3");
}

use generated::secret_discovery_service_server::{SecretDiscoveryService, SecretDiscoveryServiceServer};
use generated::{
    DataSource, DiscoveryRequest, DiscoveryResponse, Resource, Secret, TlsCertificate, ValidationContext, secret,
};

const TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// One generation of what Envoy is and trusts.
#[derive(Clone)]
struct Secrets {
    generation: u64,
    svid: Arc<SvidPem>,
    bundle: String,
}

/// Serves the secrets `svid` and `roots` until the test ends.
pub(super) struct Sds {
    secrets: watch::Sender<Secrets>,
    pub(super) port: u16,
}

impl Sds {
    /// Starts with an SVID and the roots, as PEM, that Envoy is to trust.
    pub(super) async fn start(svid: SvidPem, bundle: String) -> Self {
        let secrets = watch::Sender::new(Secrets { generation: 1, svid: Arc::new(svid), bundle });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = SecretDiscoveryServiceServer::new(Service(secrets.subscribe()));
        let router = Routes::new(service).prepare().into_axum_router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { secrets, port }
    }

    pub(super) fn publish(&self, svid: SvidPem, bundle: String) {
        self.secrets.send_modify(|secrets| {
            *secrets = Secrets { generation: secrets.generation + 1, svid: Arc::new(svid), bundle };
        });
    }
}

struct Service(watch::Receiver<Secrets>);

#[tonic::async_trait]
impl SecretDiscoveryService for Service {
    type StreamSecretsStream = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

    /// Envoy opens a stream for each secret; what it acknowledges later needs no answer.
    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let mut requests = request.into_inner();
        let names = requests.message().await?.unwrap_or_default().resource_names;
        tokio::spawn(async move {
            while let Some(Ok(acknowledged)) = requests.next().await {
                drop(acknowledged);
            }
        });
        let mut changes = self.0.clone();
        changes.mark_changed();
        let responses = futures_util::stream::unfold((changes, names), |(mut changes, names)| async move {
            changes.changed().await.ok()?;
            let response = changes.borrow_and_update().response(&names);
            Some((Ok(response), (changes, names)))
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

impl Secrets {
    fn response(&self, names: &[String]) -> DiscoveryResponse {
        let inline = |pem: &str| Some(DataSource { inline_bytes: pem.as_bytes().to_vec() });
        let resources = names.iter().map(|name| {
            let secret = match name.as_str() {
                "svid" => secret::Type::TlsCertificate(TlsCertificate {
                    certificate_chain: inline(&self.svid.certificate),
                    private_key: inline(&self.svid.key),
                }),
                _ => secret::Type::ValidationContext(ValidationContext { trusted_ca: inline(&self.bundle) }),
            };
            let secret = Secret { name: name.clone(), r#type: Some(secret) };
            Resource { type_url: TYPE.to_owned(), value: secret.encode_to_vec() }
        });
        DiscoveryResponse {
            version_info: self.generation.to_string(),
            resources: resources.collect(),
            type_url: TYPE.to_owned(),
            nonce: self.generation.to_string(),
        }
    }
}
