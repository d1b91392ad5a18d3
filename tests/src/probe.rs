//! A tonic service that tells who calls it.

use std::pin::Pin;

use axum::Router;
use futures_util::Stream;
use mesh_core::Mesh;
use mesh_tonic::{Channel, RequestExt};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::kit::Reached;

mod generated {
    #![allow(missing_docs, unreachable_pub)]
    tonic::include_proto!("probe");
}

pub(crate) use generated::Text;
use generated::probe_client::ProbeClient;
use generated::probe_server::{Probe, ProbeServer};

/// Its methods, for policies.
pub(crate) const ECHO: &str = "/probe.Probe/Echo";

/// The service. Notes each call in `reached`.
pub(crate) fn router(reached: &Reached) -> Router {
    mesh_tonic::router(Routes::new(ProbeServer::new(Service(reached.clone()))))
}

/// A generated client of `service`.
pub(crate) fn client(mesh: &Mesh, service: &str) -> ProbeClient<Channel> {
    ProbeClient::new(Channel::new(mesh, service).unwrap())
}

/// What [`Probe::echo`] is asked and answers.
pub(crate) fn text(text: impl Into<String>) -> Text {
    Text { text: text.into() }
}

struct Service(Reached);

/// The caller that the mesh knows, or the one that a sidecar in front claims.
fn caller<T>(request: &Request<T>) -> String {
    match (request.principal(), request.metadata().get("x-forwarded-client-cert")) {
        (Ok(principal), _) => principal.to_string(),
        (Err(_), Some(claim)) => claim.to_str().unwrap().to_owned(),
        (Err(status), None) => status.to_string(),
    }
}

#[tonic::async_trait]
impl Probe for Service {
    type SpellStream = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

    async fn echo(&self, request: Request<Text>) -> Result<Response<Text>, Status> {
        self.0.note();
        let caller = caller(&request);
        Ok(Response::new(text(format!("{} for {caller}", request.into_inner().text))))
    }

    async fn spell(&self, request: Request<Text>) -> Result<Response<Self::SpellStream>, Status> {
        self.0.note();
        let letters: Vec<_> = request.into_inner().text.chars().map(|letter| Ok(text(letter))).collect();
        let end = Err(Status::not_found("no more letters"));
        Ok(Response::new(Box::pin(futures_util::stream::iter(letters.into_iter().chain([end])))))
    }
}
