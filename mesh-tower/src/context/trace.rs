//! W3C Trace Context, level 2: `traceparent` and `tracestate`.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::rng::Rng;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// What a vendor must at least propagate (3.3.1.5), and what we keep at most.
const MAX_TRACESTATE: usize = 512;
const SAMPLED: u8 = 1;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Which trace and span a piece of work belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// The first span of a new trace, sampled.
    pub fn root(rng: &Rng) -> Self {
        let trace_id = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
        Self { trace_id: trace_id.max(1), span_id: rng.next_u64().max(1), flags: SAMPLED, state: None }
    }

    /// A span below this one.
    pub fn child(&self, rng: &Rng) -> Self {
        Self { span_id: rng.next_u64().max(1), ..self.clone() }
    }

    /// The trace and span with these ids, for bridges to other tracers.
    ///
    /// `None` if an id is zero. (2.2.2.1)
    pub fn from_ids(trace_id: u128, span_id: u64, sampled: bool) -> Option<Self> {
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags: u8::from(sampled), state: None })
    }

    /// This span, carrying what `other` carries for other vendors.
    #[must_use]
    pub fn with_state_of(self, other: Option<&Self>) -> Self {
        Self { state: other.and_then(|other| other.state.clone()), ..self }
    }

    /// Reads the caller's span.
    ///
    /// `None` where there is none, more than one, or one that is not well formed: the trace then starts anew. (3.2.2.3,
    /// 4.3)
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        let mut trace = Self::parse(parent.as_bytes())?;
        trace.state = state(headers);
        Some(trace)
    }

    /// Reads one `traceparent`.
    pub fn parse(parent: &[u8]) -> Option<Self> {
        // version "-" trace-id "-" parent-id "-" flags; a later version may append "-" and more. (2.2.2, 2.2.4)
        let (fixed, more) = parent.split_at_checked(55)?;
        let version = hex(fixed.get(..2)?)?;
        let dashes = [2, 35, 52].iter().all(|at| fixed.get(*at) == Some(&b'-'));
        let whole = if version == 0 { more.is_empty() } else { matches!(more.first(), None | Some(b'-')) };
        if version == 0xff || !dashes || !whole {
            return None;
        }
        let trace_id = hex(fixed.get(3..35)?)?;
        let span_id = u64::try_from(hex(fixed.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex(fixed.get(53..55)?)?).ok()?;
        // Only the flags that this level knows are passed on. (2.2.3.2)
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags: flags & 0b11, state: None })
    }

    /// Writes this span as the parent of the request with these headers.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.traceparent());
        match self.state.as_deref().and_then(|state| HeaderValue::try_from(state).ok()) {
            Some(state) => headers.insert(TRACESTATE, state),
            None => headers.remove(TRACESTATE),
        };
    }

    /// The `traceparent` that names this span.
    pub fn traceparent(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let (head, flags) = text.split_at_mut(53);
        write_hex(head.get_mut(3..35), self.trace_id);
        write_hex(head.get_mut(36..52), u128::from(self.span_id));
        write_hex(Some(flags), u128::from(self.flags));
        // Hex digits and dashes are visible ASCII.
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("00"))
    }

    /// The trace's id.
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The trace's id in 32 lower-case hex digits.
    pub fn trace_id_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The span's id.
    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// Whether the caller may have recorded it.
    pub fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// What other vendors carry along, unread.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// All `tracestate` headers as one; `None` when they are too long or not text: dropping it loses no trace. (3.3.1)
fn state(headers: &HeaderMap) -> Option<Arc<str>> {
    let mut joined = String::new();
    for value in headers.get_all(TRACESTATE) {
        let value = value.to_str().ok()?;
        if joined.len() + value.len() >= MAX_TRACESTATE {
            return None;
        }
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(value);
    }
    (!joined.is_empty()).then(|| joined.into())
}

/// Lower-case hex only. (2.2.2)
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

fn write_hex(into: Option<&mut [u8]>, mut number: u128) {
    for slot in into.into_iter().flatten().rev() {
        *slot = HEX.get((number & 0xf) as usize).copied().unwrap_or(b'0');
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_written() {
        let trace = TraceContext::parse(PARENT.as_bytes()).unwrap();
        assert_eq!(trace.traceparent(), PARENT);
        assert_eq!(trace.trace_id_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(trace.sampled());
        let child = trace.child(&Rng::seeded(1));
        assert_eq!(child.trace_id(), trace.trace_id());
        assert_ne!(child.span_id(), trace.span_id());
        let root = TraceContext::root(&Rng::seeded(1));
        assert_eq!(TraceContext::parse(root.traceparent().as_bytes()), Some(root));
    }

    #[test]
    fn malformed_parents_start_anew() {
        for parent in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00x4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(parent.as_bytes()), None, "{parent}");
        }
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-brings";
        assert!(TraceContext::parse(later.as_bytes()).is_some());
    }

    #[test]
    fn two_parents_are_none_and_a_long_state_is_dropped() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        let trace = TraceContext::from_headers(&headers).unwrap();
        assert_eq!(trace.state(), Some("a=1,b=2"));
        let mut written = HeaderMap::new();
        trace.write_to(&mut written);
        assert_eq!(TraceContext::from_headers(&written), Some(trace));
        headers.append(TRACESTATE, HeaderValue::try_from("c=".to_owned() + &"x".repeat(600)).unwrap());
        assert_eq!(TraceContext::from_headers(&headers).unwrap().state(), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        assert_eq!(TraceContext::from_headers(&headers), None);
    }
}
