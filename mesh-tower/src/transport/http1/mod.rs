//! Reads the framing of HTTP/1.1 below hyper, so that no message has two ends.
//!
//! hyper is lenient where RFC 9112 lets a server be: it drops `Content-Length` beside `Transfer-Encoding` before anybody
//! sees it, takes two equal lengths, `gzip, chunked`, and lines that end in LF alone. Each is harmless to a server that
//! nobody stands in front of; behind a proxy that reads it another way it is a second, hidden request. (CVE-2021-21299,
//! CVE-2021-32715) Here every head is judged before hyper may act on it, and what has no single reading ends its
//! connection. So does what hyper would answer by itself, above which nobody would count it or write it down: a target that is no
//! URI, too many fields.
//!
//! ```text
//! TLS -> Guard -> hyper -> Edge -> the stack
//!          |                 ^
//!          +- Verdict -------+   this head was refused: answer it with 400 or 431, and write it down
//! ```

mod chunks;
mod framing;
mod guard;
mod head;
mod refusal;
#[cfg(test)]
mod tests;
mod verdict;

pub(super) use framing::Limits;
pub(super) use guard::Guard;
pub(super) use verdict::Verdict;
