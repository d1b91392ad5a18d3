//! The control arm: tower's `p2c::Balance` over `PeakEwma`, unchanged, in the same virtual time.
//!
//! tower reads tokio's clock, so the engine has to move that clock along where a cluster is balanced by this.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mesh_core::rng::Rng;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma};
use tower::{BoxError, Service};

/// tower's balancer over all servers of a cluster. It knows no weights, priorities, localities and connections.
pub(super) struct TowerBalancer {
    balance: Balance<ServiceList<Vec<PeakEwma<Endpoint>>>, Arc<Exchange>>,
}

/// A request that counts as pending there until it is answered or dropped.
pub(super) struct TowerPick {
    future: Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>,
    exchange: Arc<Exchange>,
}

/// What the engine and a service of tower's tell each other.
#[derive(Debug, Default)]
struct Exchange {
    server: AtomicUsize,
    end: AtomicU8,
}

const GOOD: u8 = 1;
const BAD: u8 = 2;

/// One server, always ready: as hyper's connections are, which queue.
#[derive(Debug)]
struct Endpoint(usize);

/// The answer that the engine will give.
#[derive(Debug)]
struct Answer(Arc<Exchange>);

impl Future for Answer {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.end.load(Relaxed) {
            GOOD => Poll::Ready(Ok(())),
            BAD => Poll::Ready(Err("failed".into())),
            _ => Poll::Pending,
        }
    }
}

impl Service<Arc<Exchange>> for Endpoint {
    type Response = ();
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Arc<Exchange>) -> Answer {
        exchange.server.store(self.0, Relaxed);
        Answer(exchange)
    }
}

/// tower's own trait over the mesh's numbers.
struct Seeded(Rng);

impl tower::util::rng::Rng for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

impl TowerBalancer {
    pub(super) fn new(servers: &[usize], default_rtt: Duration, decay: Duration, rng: Rng) -> Self {
        let measured = |server: &usize| {
            PeakEwma::new(Endpoint(*server), default_rtt, decay.as_nanos() as f64, CompleteOnResponse::default())
        };
        let services: Vec<_> = servers.iter().map(measured).collect();
        Self { balance: Balance::from_rng(ServiceList::new::<Arc<Exchange>>(services), Seeded(rng)) }
    }

    /// Chooses and calls; `None` if there is nobody.
    pub(super) fn pick(&mut self) -> Option<(usize, TowerPick)> {
        let mut context = Context::from_waker(Waker::noop());
        match self.balance.poll_ready(&mut context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) | Poll::Pending => return None,
        }
        let exchange = Arc::new(Exchange::default());
        let future = Box::pin(self.balance.call(Arc::clone(&exchange)));
        Some((exchange.server.load(Relaxed), TowerPick { future, exchange }))
    }
}

impl TowerPick {
    /// The answer came, or the connection broke.
    pub(super) fn answered(mut self, good: bool) {
        self.exchange.end.store(if good { GOOD } else { BAD }, Relaxed);
        // It is ready now, and tower takes its measure.
        let _ = self.future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
}

impl std::fmt::Debug for TowerBalancer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TowerBalancer").field("endpoints", &self.balance.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TowerPick {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TowerPick").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}
