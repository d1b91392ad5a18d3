//! `limits:` - what the server stack admits.

/// Limits that hold for all requests of this process together, and for each caller.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitsConfig {
    /// Requests at once in this process; further ones are shed with 503 / UNAVAILABLE. Default 1,024, range 1 to
    /// 1,000,000.
    pub max_concurrent_requests: usize,
    /// Requests of each principal over time; absent: unlimited.
    pub rate: Option<RateLimitConfig>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { max_concurrent_requests: 1024, rate: None }
    }
}

/// A token bucket for each authenticated principal.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimitConfig {
    /// Sustained requests a second. Range 0.001 to 1,000,000.
    pub per_second: f64,
    /// Requests that may come at once. Default: `per_second`, at least 1. Range 1 to 1,000,000.
    pub burst: u32,
    /// Principals remembered; the least recently seen is forgotten first. Default 10,000, range 1 to 1,000,000. Each
    /// costs about 200 bytes.
    pub max_principals: usize,
}
