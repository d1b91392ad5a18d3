//! Chained changes of sections that later versions add fields to.
//!
//! Such a section is `#[non_exhaustive]`, so a program cannot write it as a literal: it starts from the section's
//! constructor or default, and changes what it wants to be different.

/// One method for each field, of the field's name.
macro_rules! setters {
    ($($section:ident { $($field:ident: $given:ty $(=> $wrap:expr)?,)* })*) => {$(
        impl $section {$(
            #[doc = concat!("Sets [`", stringify!($field), "`](field@Self::", stringify!($field), ").")]
            #[must_use]
            pub fn $field(mut self, $field: $given) -> Self {
                self.$field = setters!(@value $field $($wrap)?);
                self
            }
        )*}
    )*};
    (@value $field:ident) => { $field };
    (@value $field:ident $wrap:expr) => { $wrap($field) };
}

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    AuditConfig, AuditRoute, BalanceConfig, BalancePolicy, BindingConfig, BreakerConfig, BudgetConfig,
    CheckpointConfig, ClaimHeader, ClusterConfig, ClusterLimitsConfig, DiscoveryConfig, FailurePercentageConfig,
    ForwardedConfig, GrpcCheckConfig, HashKey, HealthCheckConfig, HoldConfig, HttpVersion, IssuerConfig,
    LeastRequestConfig, LimitsConfig, ListenerConfig, LocalityConfig, MaxRetries, Mtls, OutlierConfig, PanicAction,
    PanicConfig, PathMatch, PermissionConfig, PlugConfig, PoolConfig, RateLimitConfig, RetryConfig, RingHashConfig,
    RouteConfig, RouteMatch, SlowStartConfig, SubjectConfig, SubjectsConfig, SuccessRateConfig, TelemetryConfig,
    TlsConfig, TlsVersion, TokenHeader, WeightedConfig, ZoneAwareConfig,
};
use crate::audit::SubjectMode;

setters! {
    ListenerConfig {
        mtls: Mtls,
        tls: TlsConfig,
        forwarded_identity: ForwardedConfig => Some,
        trusted_hops: u32,
        handshake_timeout: Duration,
        hello_timeout: Duration,
        header_timeout: Duration,
        body_timeout: Duration,
        send_timeout: Duration,
        min_body_rate: u32,
        idle_timeout: Duration,
        max_connection_age: Duration,
        drain_timeout: Duration,
        shutdown_delay: Duration,
        max_connections: usize,
        max_half_open: usize => Some,
        max_connections_per_ip: usize => Some,
        max_connections_per_peer: usize => Some,
        max_resets_per_second: u32,
        max_handshakes: usize,
        max_concurrent_streams: u32,
        max_header_bytes: u32,
        max_headers: usize,
        max_body_bytes: u64,
        decompress_requests: bool,
    }
    ClusterConfig {
        discover_hold: HoldConfig,
        balance: BalanceConfig,
        outlier: OutlierConfig,
        breaker: BreakerConfig => Some,
        limits: ClusterLimitsConfig,
        health_check: HealthCheckConfig => Some,
        pool: PoolConfig,
        tls: TlsConfig,
        token: PlugConfig => Some,
        residency: impl IntoIterator<Item = impl Into<String>> => strings,
    }
    HoldConfig {
        shrink: f64,
        confirm_after: Duration,
        empty_after: Duration => Some,
    }
    DiscoveryConfig {
        snapshot_dir: PathBuf => Some,
        snapshot_max_age: Duration,
    }
    TlsConfig {
        min_version: TlsVersion,
        resumption: bool,
    }
    BalanceConfig {
        policy: BalancePolicy,
        decay: Duration,
        default_rtt: Duration,
        failure_penalty: Duration,
        overprovisioning_percent: u32,
        panic: PanicConfig,
        locality: LocalityConfig,
        slow_start: SlowStartConfig => Some,
    }
    LeastRequestConfig {
        choices: u32,
    }
    RingHashConfig {
        min_ring_size: u64,
        max_ring_size: u64,
        balance_factor: u32 => Some,
    }
    PanicConfig {
        threshold_percent: u32,
        action: PanicAction,
    }
    WeightedConfig {
        weights: BTreeMap<String, u32>,
    }
    ZoneAwareConfig {
        min_endpoints: u32,
        callers: BTreeMap<String, u32>,
        spill: u32,
    }
    SlowStartConfig {
        min_weight_percent: u32,
        aggression: f64,
    }
    OutlierConfig {
        consecutive_failures: u32,
        success_rate: SuccessRateConfig,
        failure_percentage: FailurePercentageConfig,
        interval: Duration,
        base_ejection: Duration,
        max_ejection: Duration,
        ejection_jitter: f64,
        max_ejection_percent: u32,
    }
    SuccessRateConfig {
        stdev_factor: f64,
        min_hosts: u32,
        min_requests: u32,
        significance: f64,
    }
    FailurePercentageConfig {
        threshold: u32,
        min_hosts: u32,
        min_requests: u32,
    }
    BreakerConfig {
        consecutive_failures: u32,
        success_rate: f64,
        window: Duration,
        min_requests: u32,
        backoff: Duration,
        max_backoff: Duration,
        jitter: f64,
    }
    ClusterLimitsConfig {
        max_requests: usize,
        max_connections: usize,
        max_handshakes: usize,
        max_retries: MaxRetries => Some,
    }
    HealthCheckConfig {
        interval: Duration,
        jitter: f64,
        timeout: Duration,
        unhealthy_threshold: u32,
        healthy_threshold: u32,
        concurrency: usize,
        ends_ejection: bool,
    }
    GrpcCheckConfig {
        service: impl Into<String> => Into::into,
    }
    PoolConfig {
        http: HttpVersion,
        connect_timeout: Duration,
        max_connections: usize,
        max_pending: usize,
        ping_interval: Duration,
        ping_timeout: Duration,
        idle_timeout: Duration,
        max_connection_age: Duration,
        stream_idle_timeout: Duration,
        max_header_bytes: u32,
    }
    RouteConfig {
        matches: RouteMatch,
        timeout: Duration,
        retry: RetryConfig => Some,
        hash: Vec<HashKey>,
    }
    RouteMatch {
        method: impl Into<String> => some_string,
        path: PathMatch => Some,
    }
    RetryConfig {
        attempts: u32,
        per_try_timeout: Duration => Some,
        idempotent: bool => Some,
        backoff: Duration,
        max_backoff: Duration,
        max_replay_bytes: usize,
        budget: BudgetConfig,
    }
    BudgetConfig {
        ratio: f64,
        min_per_second: u32,
        window: Duration,
    }
    IssuerConfig {
        algorithms: Vec<String>,
        leeway: Duration,
        max_lifetime: Duration,
        types: Vec<String>,
        from_headers: Vec<TokenHeader>,
        from_params: Vec<String>,
        from_cookies: Vec<String>,
        output_payload_to_header: impl Into<String> => some_string,
        output_claim_to_headers: Vec<ClaimHeader>,
        forward_original_token: bool,
    }
    LimitsConfig {
        max_concurrent_requests: usize,
        max_concurrent_requests_per_peer: usize => Some,
        rate: RateLimitConfig => Some,
    }
    RateLimitConfig {
        burst: u32,
        max_principals: usize,
    }
    AuditConfig {
        sink: PlugConfig => Some,
        queue: usize,
        sign_key: PathBuf => Some,
        checkpoint: CheckpointConfig,
        subject: SubjectConfig,
        routes: Vec<AuditRoute>,
        required_timeout: Duration,
    }
    CheckpointConfig {
        records: u64,
        interval: Duration,
    }
    SubjectConfig {
        mode: SubjectMode,
        key: PathBuf => Some,
    }
    TelemetryConfig {
        exporter: PlugConfig => Some,
    }
    PermissionConfig {
        methods: impl IntoIterator<Item = impl Into<String>> => some_strings,
        paths: impl IntoIterator<Item = impl Into<String>> => some_strings,
        grpc: impl IntoIterator<Item = impl Into<String>> => some_strings,
    }
    BindingConfig {
        name: impl Into<String> => some_string,
    }
    SubjectsConfig {
        identities: impl IntoIterator<Item = impl Into<String>> => some_strings,
        request_principals: impl IntoIterator<Item = impl Into<String>> => some_strings,
        groups: impl IntoIterator<Item = impl Into<String>> => some_strings,
        scopes: impl IntoIterator<Item = impl Into<String>> => some_strings,
    }
}

fn some_string(text: impl Into<String>) -> Option<String> {
    Some(text.into())
}

fn strings(all: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    all.into_iter().map(Into::into).collect()
}

fn some_strings(all: impl IntoIterator<Item = impl Into<String>>) -> Option<Vec<String>> {
    Some(strings(all))
}
