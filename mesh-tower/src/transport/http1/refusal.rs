//! Why a message was refused.

use crate::connection::Unfit;

/// What is wrong with the framing of a message. The words are stable, for logs, metrics and audit records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Refusal {
    /// A line that ends in LF without CR. (RFC 9112 2.2 lets a recipient take it, and another not)
    LineEnd,
    /// Not `method SP target SP HTTP/1.x`.
    RequestLine,
    /// A target that is no URI, or longer than any may be.
    Target,
    /// CONNECT: what follows would be no HTTP.
    Connect,
    /// No name, or white space in or behind it. (RFC 9112 5.1)
    FieldName,
    /// A line that goes on on the next. (RFC 9112 5.2)
    Fold,
    /// A control character, CR and NUL among them. (RFC 9110 5.5)
    FieldValue,
    /// Not a plain decimal number.
    ContentLength,
    /// Two of them, even if they agree.
    ContentLengths,
    /// Anything but `chunked`, or any in HTTP/1.0. (RFC 9112 6.1)
    TransferEncoding,
    /// Two of them.
    TransferEncodings,
    /// Both at once. (RFC 9112 6.3)
    Both,
    /// `Upgrade`: what follows may be no HTTP.
    Upgrade,
    /// A head, or trailers, of more than `max_header_bytes`.
    TooLarge,
    /// More than `max_headers` of them, or of trailers.
    TooMany,
    /// No chunk as RFC 9112 7.1 has it.
    Chunk,
    /// A trailer that belongs in a head. (RFC 9110 6.5.1)
    Trailer,
}

impl Refusal {
    /// What is wrong with a head that can be read well, and is only too much; `None` for the others.
    pub(in crate::transport) const fn unfit(self) -> Option<Unfit> {
        match self {
            Self::TooLarge => Some(Unfit::HeadersTooLarge),
            Self::TooMany => Some(Unfit::TooManyHeaders),
            _ => None,
        }
    }

    pub(in crate::transport) const fn as_str(self) -> &'static str {
        match self {
            Self::LineEnd => "line_end",
            Self::RequestLine => "request_line",
            Self::Target => "target",
            Self::Connect => "target_form",
            Self::FieldName => "header_name",
            Self::Fold => "header_fold",
            Self::FieldValue => "header_value",
            Self::ContentLength => "content_length",
            Self::ContentLengths => "duplicate_content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::TransferEncodings => "duplicate_transfer_encoding",
            Self::Both => "length_and_transfer_encoding",
            Self::Upgrade => "upgrade",
            Self::TooLarge => "headers_too_large",
            Self::TooMany => "too_many_headers",
            Self::Chunk => "chunk",
            Self::Trailer => "trailer",
        }
    }
}
