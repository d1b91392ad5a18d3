//! One server from its settings to its end.

use std::convert::Infallible;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use mesh_core::Mesh;
use mesh_core::config::ListenerConfig;
use tower_service::Service;

use super::app::{HttpApp, Opaque, Routes, Stack, Web};
use super::error::ServeError;
#[cfg(doc)]
use super::shutdown_signal;
use crate::accept::{self, Accept};
use crate::admin;
use crate::server::{self, MethodLayer, RouteLayer};
use crate::transport::Ground;

/// The listener that is used unless another is named.
const DEFAULT: &str = "default";

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A server that is about to run. See [`serve`](crate::serve()).
#[must_use = "a server does nothing unless it is awaited"]
pub struct Serve<L, A> {
    mesh: Mesh,
    listener: L,
    name: String,
    app: A,
    signal: Option<BoxFuture<()>>,
    cut: Option<BoxFuture<()>>,
}

impl<L, A> Serve<L, A> {
    pub(super) fn new(mesh: &Mesh, listener: L, app: A) -> Self {
        Self { mesh: mesh.clone(), listener, name: DEFAULT.to_owned(), app, signal: None, cut: None }
    }

    /// Takes limits and timeouts from this entry of `listeners:`.
    ///
    /// Default: `default`, or every default value where there is no such entry. Any other name must be configured.
    pub fn listener(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Stops when `signal` is ready.
    ///
    /// Is not ready any more and serves on for `shutdown_delay`; then accepts nothing more, asks all peers to go, lets
    /// requests in flight finish for `drain_timeout`, and cuts. Ends a second later at most.
    pub fn with_graceful_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.signal = Some(Box::pin(signal));
        self
    }

    /// Cuts everything at once when `signal` is ready.
    ///
    /// It is asked for only after stopping has begun, so with [`shutdown_signal`] here and in
    /// [`with_graceful_shutdown`](Self::with_graceful_shutdown), the second ctrl-c ends.
    pub fn with_forced_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.cut = Some(Box::pin(signal));
        self
    }
}

impl<L> Serve<L, Web> {
    /// Serves requests with content type `application/grpc*` by this router, fallback included.
    pub fn grpc(mut self, router: Router) -> Self {
        self.app.grpc = Some(router);
        self
    }
}

impl<L, A> std::fmt::Debug for Serve<L, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serve").field("listener", &self.name).finish_non_exhaustive()
    }
}

impl<L: Accept> IntoFuture for Serve<L, Web> {
    type Output = Result<(), ServeError>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let http = self.app.http.layer(RouteLayer);
        let routes = Routes { http, grpc: self.app.grpc.map(|router| router.layer(MethodLayer)) };
        let service = server::stack_of_routers(&self.mesh, routes);
        Box::pin(run(self.mesh, self.listener, self.name, service, (self.signal, self.cut)))
    }
}

impl<L: Accept, S: HttpApp> IntoFuture for Serve<L, Opaque<S>> {
    type Output = Result<(), ServeError>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let service = server::stack(&self.mesh, self.app.0.into_service());
        Box::pin(run_routeless(self.mesh, self.listener, self.name, service, (self.signal, self.cut)))
    }
}

impl<L, S> IntoFuture for Serve<L, Stack<S>>
where
    L: Accept,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Output = Result<(), ServeError>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(run_routeless(self.mesh, self.listener, self.name, self.app.0, (self.signal, self.cut)))
    }
}

/// [`run`] of what has no routes that the mesh could know.
async fn run_routeless<L, S>(
    mesh: Mesh,
    listener: L,
    name: String,
    service: S,
    signals: (Option<BoxFuture<()>>, Option<BoxFuture<()>>),
) -> Result<(), ServeError>
where
    L: Accept,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let _routeless = mesh.without_routes().map_err(ServeError::Routes)?;
    run(mesh.clone(), listener, name, service, signals).await
}

async fn run<L, S>(
    mesh: Mesh,
    listener: L,
    name: String,
    service: S,
    (signal, cut): (Option<BoxFuture<()>>, Option<BoxFuture<()>>),
) -> Result<(), ServeError>
where
    L: Accept,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let local_addr = listener.local_addr().map_err(ServeError::Listener)?;
    let known = configured(&mesh, &name);
    if known.is_none() && name != DEFAULT {
        return Err(ServeError::unknown(&mesh, &name));
    }
    let start = known.unwrap_or_else(|| ListenerConfig::new(local_addr));
    admin::start(&mesh).await?;
    let mut serving = admin::Serving::begin(&mesh);
    let never = || -> BoxFuture<()> { Box::pin(std::future::pending()) };
    let (stop, cut) = (signal.unwrap_or_else(never), cut.unwrap_or_else(never));
    // A listener that vanished from the configuration keeps the settings it started with.
    let settings = || configured(&mesh, &name).unwrap_or_else(|| start.clone());
    let stop = accept::Stop { signal: stop, draining: || serving.drain(), cut };
    accept::run(Ground::of(&mesh), Arc::from(name.as_str()), listener, service, settings, stop)
        .await
        .map_err(ServeError::Listener)
}

pub(super) fn configured(mesh: &Mesh, listener: &str) -> Option<ListenerConfig> {
    mesh.revision().load().config.listeners.get(listener).cloned()
}
