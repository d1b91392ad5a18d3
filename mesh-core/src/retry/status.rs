//! What the status of an HTTP answer says.

/// Whether a status speaks against the endpoint, and whether another attempt may do better.
///
/// Health and retry are different questions: a 500 speaks against the endpoint, but asking again would most likely only
/// repeat the damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    /// 2xx, 3xx, 4xx without 429: the endpoint is well.
    Fine,
    /// 429 and 5xx: it failed, and would again.
    Failure,
    /// 502, 503, 504: it failed, and another one may not.
    Unavailable,
}

impl StatusClass {
    /// That of a status.
    pub fn of(status: u16) -> Self {
        match status {
            502..=504 => Self::Unavailable,
            429 | 500..=599 => Self::Failure,
            _ => Self::Fine,
        }
    }
}
