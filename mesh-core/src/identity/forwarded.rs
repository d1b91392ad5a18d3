//! Reads `x-forwarded-client-cert`: whom a gateway names as its client. (Envoy, "HTTP header manipulation")
//!
//! ```text
//! header  = element *( "," element )            element = pair *( ";" pair )
//! pair    = key "=" value                       key     = By | Hash | Cert | Chain | Subject | URI | DNS, in any case
//! value   = *plain | DQUOTE *( %x20-21 / %x23-5B / %x5D-7E / "\" %x20-7E ) DQUOTE
//! plain   = visible ASCII without DQUOTE "," ";" "=" "\"
//! ```
//!
//! Earlier elements are what somebody told the gateway; only the last one is what it saw itself. All must be in the
//! grammar, because an open quote in an earlier one would swallow the last.

use super::{SpiffeId, SpiffeIdError};

/// Bytes of the whole header at most.
///
/// A chain in PEM may be 8 KiB, and more once its bytes are percent-encoded.
pub const MAX_FORWARDED: usize = 16 * 1024;
/// Elements at most: hops that a request may have taken.
const MAX_ELEMENTS: usize = 32;

/// Why a gateway's word is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardedError {
    /// Longer than [`MAX_FORWARDED`], or more hops than anybody has.
    #[error("the header is too long")]
    TooLong,
    /// Not in the grammar, from this byte on.
    #[error("not in the grammar at byte {0}")]
    Syntax(usize),
    /// A key that nobody defined, or twice what can be there once, in the last element.
    #[error("an unknown or repeated key in the last element")]
    Key,
    /// `Hash` in the last element is no SHA-256.
    #[error("`Hash` is not 64 hexadecimal digits")]
    Hash,
    /// `By` in the last element is not the gateway: somebody else wrote it.
    #[error("the last element was not added by the gateway that sent it")]
    By,
    /// The last element has no `URI`, or more than one.
    #[error("the last element has {0} URIs, expected one")]
    Uris(usize),
    /// The URI is no SPIFFE ID.
    #[error("the URI is no SPIFFE ID: {0}")]
    SpiffeId(#[from] SpiffeIdError),
    /// The URI names a trust domain, not a workload.
    #[error("the URI has no path")]
    NoPath,
}

impl ForwardedError {
    /// A stable code for logs, metrics and audit.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLong => "forwarded_too_long",
            Self::Syntax(_) | Self::Key | Self::Hash => "forwarded_syntax",
            Self::By => "forwarded_by",
            Self::Uris(_) | Self::SpiffeId(_) | Self::NoPath => "forwarded_uri",
        }
    }
}

/// The client that `gateway` names in `header`.
///
/// That is the whole value of the one such header of a request.
///
/// Proves nothing: the caller must know that `gateway` is who sent it, and may say so. Fails closed on anything odd.
pub fn forwarded_identity(header: &[u8], gateway: &SpiffeId) -> Result<SpiffeId, ForwardedError> {
    if header.len() > MAX_FORWARDED {
        return Err(ForwardedError::TooLong);
    }
    let text = std::str::from_utf8(header).map_err(|error| ForwardedError::Syntax(error.valid_up_to()))?;
    let mut reader = Reader { text, at: 0 };
    for _ in 0..MAX_ELEMENTS {
        let element = reader.element()?;
        if reader.at == text.len() {
            return named_by(&element, gateway);
        }
        reader.expect(",")?;
    }
    Err(ForwardedError::TooLong)
}

fn named_by(element: &[(&str, &str)], gateway: &SpiffeId) -> Result<SpiffeId, ForwardedError> {
    let values = |key: &'static str| {
        let of_key = move |(name, _): &&(&str, &str)| name.eq_ignore_ascii_case(key);
        element.iter().filter(of_key).map(|(_, value)| *value)
    };
    const KEYS: [&str; 7] = ["by", "hash", "cert", "chain", "subject", "uri", "dns"];
    let known = |name: &str| KEYS.iter().any(|key| name.eq_ignore_ascii_case(key));
    let repeated = ["hash", "cert", "chain", "subject"].into_iter().any(|key| values(key).nth(1).is_some());
    if repeated || !element.iter().all(|(name, _)| known(name)) {
        return Err(ForwardedError::Key);
    }
    if !values("hash").all(|hash| hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit())) {
        return Err(ForwardedError::Hash);
    }
    if !values("by").all(|by| by == gateway.as_str()) {
        return Err(ForwardedError::By);
    }
    let mut uris = values("uri");
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(ForwardedError::Uris(values("uri").count()));
    };
    let id = SpiffeId::parse(uri)?;
    if id.path().is_empty() { Err(ForwardedError::NoPath) } else { Ok(id) }
}

/// Walks the header once, from left to right.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// The pairs of one element. Values are as written, without their quotes: an escape is never undone, because no
    /// value that matters may hold one.
    fn element(&mut self) -> Result<Vec<(&'a str, &'a str)>, ForwardedError> {
        let mut pairs = Vec::new();
        loop {
            let key = self.run(|byte| byte.is_ascii_alphabetic());
            if key.is_empty() {
                return Err(ForwardedError::Syntax(self.at));
            }
            self.expect("=")?;
            pairs.push((key, self.value()?));
            if !self.rest().starts_with(';') {
                return Ok(pairs);
            }
            self.expect(";")?;
        }
    }

    fn value(&mut self) -> Result<&'a str, ForwardedError> {
        if !self.rest().starts_with('"') {
            return Ok(self.run(|byte| byte.is_ascii_graphic() && !b"\",;=\\".contains(&byte)));
        }
        self.expect("\"")?;
        let start = self.at;
        loop {
            self.run(|byte| matches!(byte, b' '..=b'~') && !b"\"\\".contains(&byte));
            if self.rest().starts_with('"') {
                let value = self.text.get(start..self.at).unwrap_or_default();
                self.expect("\"")?;
                return Ok(value);
            }
            self.expect("\\")?;
            if !self.rest().bytes().next().is_some_and(|byte| matches!(byte, b' '..=b'~')) {
                return Err(ForwardedError::Syntax(self.at));
            }
            self.at += 1;
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn run(&mut self, of: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.bytes().position(|byte| !of(byte)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn expect(&mut self, token: &str) -> Result<(), ForwardedError> {
        if !self.rest().starts_with(token) {
            return Err(ForwardedError::Syntax(self.at));
        }
        self.at += token.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GATEWAY: &str = "spiffe://td/ns/edge/sa/gateway";
    const ALICE: &str = "spiffe://td/ns/shop/sa/alice";

    fn read(header: &[u8]) -> Result<String, &'static str> {
        let gateway = SpiffeId::parse(GATEWAY).unwrap();
        forwarded_identity(header, &gateway).map(|id| id.as_str().to_owned()).map_err(|error| error.reason())
    }

    #[test]
    fn what_a_gateway_says_is_taken_whole_or_not_at_all() {
        let hash = "a".repeat(64);
        let good = format!("By={GATEWAY};Hash={hash};Subject=\"\";URI={ALICE}");
        let chain = format!("{good};Chain=\"{}\"", "%2B".repeat(5_000));
        let syntax = Err("forwarded_syntax");
        let table: &[(&str, String, Result<&str, &str>)] = &[
            ("envoy", good.clone(), Ok(ALICE)),
            ("the least", format!("URI={ALICE}"), Ok(ALICE)),
            ("keys in any case", format!("by={GATEWAY};uri={ALICE}"), Ok(ALICE)),
            ("quoted", format!("URI=\"{ALICE}\""), Ok(ALICE)),
            ("names and chain", format!("{good};DNS=a.b;DNS=c.d;Cert=\"-%2D\";Chain=\"%2B\""), Ok(ALICE)),
            ("escapes in a subject", format!("Subject=\"CN=a\\,b \\\"c\\\" \\\\\";URI={ALICE}"), Ok(ALICE)),
            ("the last element counts", format!("By=x;URI=spiffe://td/admin,{good}"), Ok(ALICE)),
            // Somebody else's element stands last.
            ("passed on", format!("{good},By=spiffe://td/other;URI=spiffe://td/admin"), Err("forwarded_by")),
            ("not its own", format!("By=spiffe://td/other;URI={ALICE}"), Err("forwarded_by")),
            ("two authors", format!("By={GATEWAY};By=spiffe://td/other;URI={ALICE}"), Err("forwarded_by")),
            ("no author", format!("By=;URI={ALICE}"), Err("forwarded_by")),
            // Not exactly one workload.
            ("no URI", format!("By={GATEWAY};Hash={hash}"), Err("forwarded_uri")),
            ("no URI after one that has", format!("URI={ALICE},By={GATEWAY}"), Err("forwarded_uri")),
            ("two URIs", format!("URI={ALICE};URI=spiffe://td/admin"), Err("forwarded_uri")),
            ("the same twice", format!("URI={ALICE};uri={ALICE}"), Err("forwarded_uri")),
            ("empty URI", "URI=".to_owned(), Err("forwarded_uri")),
            ("no SPIFFE ID", "URI=https://td/admin".to_owned(), Err("forwarded_uri")),
            ("trust domain alone", "URI=spiffe://td".to_owned(), Err("forwarded_uri")),
            ("percent-encoding", "URI=spiffe://td/ns/shop/sa/%61lice".to_owned(), Err("forwarded_uri")),
            ("encoded delimiter", format!("URI={ALICE}%3BURI%3Dspiffe://td/admin"), Err("forwarded_uri")),
            ("upper-case domain", "URI=spiffe://TD/ns/shop/sa/alice".to_owned(), Err("forwarded_uri")),
            ("dot segment", "URI=spiffe://td/ns/../sa/alice".to_owned(), Err("forwarded_uri")),
            ("escape in the URI", "URI=\"spiffe://td/a\\lice\"".to_owned(), Err("forwarded_uri")),
            ("long ID", format!("URI=spiffe://td/{}", "a".repeat(2_100)), Err("forwarded_uri")),
            // Quoting.
            ("open quote swallows", format!("URI=\"spiffe://td/admin,{good}"), syntax),
            ("open quote at the end", format!("URI={ALICE};Subject=\""), syntax),
            ("quote inside", format!("URI=spiffe://td/a\"{ALICE}\""), syntax),
            ("text after a quote", format!("Subject=\"a\"b;URI={ALICE}"), syntax),
            ("two strings", format!("Subject=\"a\"\"b\";URI={ALICE}"), syntax),
            ("escape outside", format!("Subject=a\\;URI=x;URI={ALICE}"), syntax),
            ("escape at the end", "Subject=\"a\\".to_owned(), syntax),
            ("escaped closing quote", format!("Subject=\"a\\\";URI={ALICE}"), syntax),
            // Structure.
            ("empty", String::new(), syntax),
            ("comma at the end", format!("{good},"), syntax),
            ("comma at the start", format!(",{good}"), syntax),
            ("empty element", format!("{good},,{good}"), syntax),
            ("semicolon at the end", format!("{good};"), syntax),
            ("no value", "URI".to_owned(), syntax),
            ("no key", format!("={ALICE}"), syntax),
            ("equals in a value", format!("URI={ALICE}=x"), syntax),
            ("space after a comma", format!("{good}, {good}"), syntax),
            ("space before a key", format!(" URI={ALICE}"), syntax),
            ("tab", format!("URI={ALICE}\t"), syntax),
            ("NUL", format!("URI={ALICE}\0"), syntax),
            ("other letters", format!("URI={ALICE}\u{e9}"), syntax),
            ("full-width key", format!("\u{ff35}RI={ALICE}"), syntax),
            ("an earlier element that is torn", format!("By=\"x,{good}"), syntax),
            ("unknown key", format!("{good};Role=admin"), syntax),
            ("two hashes", format!("{good};Hash={hash}"), syntax),
            ("short hash", format!("Hash={};URI={ALICE}", "a".repeat(63)), syntax),
            ("no hash", format!("Hash={};URI={ALICE}", "g".repeat(64)), syntax),
            ("many hops", vec![good.as_str(); MAX_ELEMENTS + 1].join(","), Err("forwarded_too_long")),
            ("a long chain", chain.clone(), Ok(ALICE)),
            ("too long", format!("{chain},{chain}"), Err("forwarded_too_long")),
        ];
        for (what, header, expected) in table {
            assert_eq!(read(header.as_bytes()), expected.map(str::to_owned), "{what}: {header}");
        }
        assert_eq!(read(b"URI=spiffe://td/a\xff"), syntax.map(str::to_owned));
    }

    proptest! {
        /// Whatever comes before the gateway's own element, and whatever quotes it opens: nobody but the client that
        /// the gateway saw is named.
        #[test]
        fn nothing_in_front_changes_who_is_named(
            before in "[ -~]{0,40}|((By|URI|Subject)=\"?(spiffe://td/admin|\\\\|;|,|\"){0,4}\"?[,;]?){0,4}",
            subject in "[A-Za-z=., ]{0,20}",
        ) {
            let header = format!("{before},By={GATEWAY};Hash={};Subject=\"CN={subject}\";URI={ALICE}", "0".repeat(64));
            if let Ok(named) = read(header.as_bytes()) {
                prop_assert_eq!(named, ALICE);
            }
        }

        #[test]
        fn no_input_panics(header in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&header);
        }
    }
}
