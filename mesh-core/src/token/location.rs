//! Where in a request a token may be. (Istio `RequestAuthentication`: `fromHeaders`, `fromParams`, `fromCookies`)

use std::collections::BTreeSet;

use super::TokenError;
use super::parse::is_b64token;
use crate::config::IssuerConfig;

/// Where a token was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Location {
    /// `Authorization: Bearer`.
    #[default]
    Bearer,
    /// A header, by its place in [`Locations::headers`].
    Header(usize),
    /// A query parameter, by its place in [`Locations::params`].
    Param(usize),
    /// A cookie, by its place in [`Locations::cookies`].
    Cookie(usize),
}

/// Every place where a token may be, and every header that claims are written to.
#[derive(Debug, Default)]
pub struct Locations {
    headers: Vec<Place>,
    params: Vec<Place>,
    cookies: Vec<Place>,
    bearer: Issuers,
    outputs: BTreeSet<String>,
}

/// The issuers, by their place, whose tokens are taken from somewhere.
type Issuers = BTreeSet<usize>;

#[derive(Debug)]
struct Place {
    /// Of a header: in lower case.
    name: Box<str>,
    /// Of a header: what stands before the token.
    prefix: Box<str>,
    issuers: Issuers,
}

impl Locations {
    pub(super) fn of<'a>(issuers: impl Iterator<Item = &'a IssuerConfig>) -> Self {
        let mut found = Self::default();
        for (index, config) in issuers.enumerate() {
            found.outputs.extend(config.output_claim_to_headers.iter().map(|to| to.header.to_ascii_lowercase()));
            found.outputs.extend(config.output_payload_to_header.iter().map(|header| header.to_ascii_lowercase()));
            if config.has_default_places() {
                found.bearer.insert(index);
                add(&mut found.params, IssuerConfig::ACCESS_TOKEN, "", index);
            }
            for header in &config.from_headers {
                if header.name.eq_ignore_ascii_case("authorization") && header.prefix.eq_ignore_ascii_case("bearer ") {
                    found.bearer.insert(index);
                } else {
                    add(&mut found.headers, &header.name.to_ascii_lowercase(), &header.prefix, index);
                }
            }
            for param in &config.from_params {
                add(&mut found.params, param, "", index);
            }
            for cookie in &config.from_cookies {
                add(&mut found.cookies, cookie, "", index);
            }
        }
        found
    }

    /// Headers to look at beside `Authorization: Bearer`, by name in lower case.
    ///
    /// One name may come with several prefixes.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = &str> {
        self.headers.iter().map(|header| &*header.name)
    }

    /// Query parameters to look at, by exact name.
    pub fn params(&self) -> impl ExactSizeIterator<Item = &str> {
        self.params.iter().map(|param| &*param.name)
    }

    /// Cookies to look at, by exact name.
    pub fn cookies(&self) -> impl ExactSizeIterator<Item = &str> {
        self.cookies.iter().map(|cookie| &*cookie.name)
    }

    /// Headers that claims are written to, in lower case.
    ///
    /// No caller may bring them, in no spelling.
    pub fn is_output(&self, header: &str) -> bool {
        !self.outputs.is_empty()
            && (self.outputs.contains(header)
                || header.contains('_') && self.outputs.contains(&header.replace('_', "-")))
    }

    /// Whether claims are written to any header.
    pub fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// The token in all values of the header at `index`: none, one, or a refusal.
    ///
    /// What begins otherwise than with the prefix is no token; of several prefixes of one name the longest that fits
    /// counts. Two values are refused, as is a joined pair.
    pub fn in_header<'v>(
        &self,
        index: usize,
        values: impl IntoIterator<Item = &'v [u8]>,
    ) -> Result<Option<&'v str>, TokenError> {
        let Some(place) = self.headers.get(index) else { return Ok(None) };
        let mut values = values.into_iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(TokenError::Ambiguous);
        }
        let better = |other: &&Place| {
            other.name == place.name
                && other.prefix.len() > place.prefix.len()
                && value.starts_with(other.prefix.as_bytes())
        };
        let Some(token) = value.strip_prefix(place.prefix.as_bytes()) else { return Ok(None) };
        if self.headers.iter().any(|other| better(&other)) {
            return Ok(None);
        }
        one(token).map(Some)
    }

    /// Whether tokens of the issuer at this place are taken from there.
    pub(super) fn allow(&self, issuer: usize, location: Location) -> bool {
        let allowed = match location {
            Location::Bearer => Some(&self.bearer),
            Location::Header(index) => self.headers.get(index).map(|place| &place.issuers),
            Location::Param(index) => self.params.get(index).map(|place| &place.issuers),
            Location::Cookie(index) => self.cookies.get(index).map(|place| &place.issuers),
        };
        allowed.is_some_and(|issuers| issuers.contains(&issuer))
    }

    /// The token in all `Cookie` headers: none, one, or a refusal of more.
    ///
    /// Names are compared as they stand.
    pub fn in_cookies<'v>(
        &self,
        values: impl IntoIterator<Item = &'v [u8]>,
    ) -> Result<Option<(Location, &'v str)>, TokenError> {
        let mut found = None;
        for (name, value) in values.into_iter().flat_map(|all| all.split(|byte| *byte == b';')).map(cookie_pair) {
            let Some(index) = self.cookies().position(|cookie| cookie.as_bytes() == name) else { continue };
            if found.is_some() {
                return Err(TokenError::Ambiguous);
            }
            found = Some((Location::Cookie(index), one(value)?));
        }
        Ok(found)
    }

    /// The token in a query: none, one, or a refusal of more.
    ///
    /// Names and values are compared as they stand: who writes a token with `%` writes none.
    pub fn in_query<'q>(&self, query: &'q str) -> Result<Option<(Location, &'q str)>, TokenError> {
        let mut found = None;
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(index) = self.params().position(|param| param == name) else { continue };
            if found.is_some() {
                return Err(TokenError::Ambiguous);
            }
            found = Some((Location::Param(index), one(value.as_bytes())?));
        }
        Ok(found)
    }
}

/// The name and the value of one pair of a `Cookie` header.
///
/// Without the quotes that a value may have. (RFC 6265 4.2.1)
pub fn cookie_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    let pair = pair.trim_ascii();
    let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    let (name, value) = pair.split_at(at);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    let plain = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    (name.trim_ascii_end(), plain.unwrap_or(value))
}

fn add(places: &mut Vec<Place>, name: &str, prefix: &str, issuer: usize) {
    match places.iter_mut().find(|place| *place.name == *name && *place.prefix == *prefix) {
        Some(place) => _ = place.issuers.insert(issuer),
        None => places.push(Place { name: name.into(), prefix: prefix.into(), issuers: Issuers::from([issuer]) }),
    }
}

/// One token and nothing else.
fn one(text: &[u8]) -> Result<&str, TokenError> {
    match std::str::from_utf8(text) {
        Ok(token) if is_b64token(token) => Ok(token),
        _ if text.contains(&b',') => Err(TokenError::Ambiguous),
        _ => Err(TokenError::Malformed("expected one token")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClaimHeader, PlugConfig, TokenHeader};

    fn issuer(change: impl FnOnce(&mut IssuerConfig)) -> IssuerConfig {
        let keys = PlugConfig::new("file", &serde_json::json!("keys.json"));
        let mut config = IssuerConfig::new("https://idp.example", vec!["a".to_owned()], keys);
        change(&mut config);
        config
    }

    fn header(name: &str, prefix: &str) -> IssuerConfig {
        issuer(|config| config.from_headers = vec![TokenHeader::new(name, prefix)])
    }

    #[test]
    fn each_issuer_has_its_places_and_no_others() {
        let param = issuer(|config| config.from_params = vec!["token".to_owned()]);
        let all = [
            issuer(|_| {}),
            header("Authorization", "bearer "),
            header("authorization", "Token "),
            header("X-Auth", "Bearer "),
            header("x-auth", "Bearer "),
            param,
        ];
        let found = Locations::of(all.iter());
        assert_eq!(found.headers().collect::<Vec<_>>(), ["authorization", "x-auth"]);
        assert_eq!(found.params().collect::<Vec<_>>(), ["access_token", "token"]);
        let allowed = |location| (0..7).filter(|issuer| found.allow(*issuer, location)).collect::<Vec<_>>();
        for (location, issuers) in [
            (Location::Bearer, &[0, 1][..]),
            (Location::Header(0), &[2]),
            (Location::Header(1), &[3, 4]),
            (Location::Header(2), &[]),
            (Location::Param(0), &[0]),
            (Location::Param(1), &[5]),
            (Location::Param(2), &[]),
        ] {
            assert_eq!(allowed(location), issuers, "{location:?}");
        }
    }

    #[test]
    fn of_several_prefixes_the_longest_counts_and_of_several_values_none() {
        let all = [header("x", ""), header("x", "Token "), header("y", "Token tok ")];
        let found = Locations::of(all.iter());
        for (index, values, expected) in [
            (0, &["abc"][..], Ok(Some("abc"))),
            (0, &["Token abc"], Ok(None)),
            (0, &["Token tok abc"], Ok(None)),
            (1, &["Token abc"], Ok(Some("abc"))),
            (1, &["Token tok abc"], Err(TokenError::Malformed("expected one token"))),
            (1, &["token abc"], Ok(None)),
            (1, &["abc"], Ok(None)),
            (1, &["Token "], Err(TokenError::Malformed("expected one token"))),
            (1, &["Token a,b"], Err(TokenError::Ambiguous)),
            (1, &["Token a", "Token a"], Err(TokenError::Ambiguous)),
            (1, &[], Ok(None)),
            (2, &["Token tok abc"], Ok(Some("abc"))),
            (3, &["abc"], Ok(None)),
        ] {
            let token = found.in_header(index, values.iter().map(|value| value.as_bytes()));
            assert_eq!(token, expected, "{index} {values:?}");
        }
        for (query, expected) in [
            ("", Ok(None)),
            ("a=b&access_tokens=c", Ok(None)),
            ("a=b", Ok(None)),
            ("a&access_token=abc&b", Ok(Some((Location::Param(0), "abc")))),
            ("access_token=a=b", Ok(Some((Location::Param(0), "a=b")))),
            ("access_token", Err(TokenError::Malformed("expected one token"))),
            ("access_token=a,b", Err(TokenError::Ambiguous)),
            ("access_token=a%2eb", Err(TokenError::Malformed("expected one token"))),
            ("access_token=a&access_token=a", Err(TokenError::Ambiguous)),
        ] {
            let usual = [issuer(|_| {})];
            assert_eq!(Locations::of(usual.iter()).in_query(query), expected, "{query}");
        }
    }

    #[test]
    fn headers_that_claims_are_written_to_are_known_in_every_spelling() {
        let writes = issuer(|config| {
            config.output_claim_to_headers =
                vec![ClaimHeader { header: "X-User-Id".to_owned(), claim: "sub".to_owned() }];
        });
        let (some, none) = (Locations::of([issuer(|_| {}), writes].iter()), Locations::of([issuer(|_| {})].iter()));
        assert!(some.has_outputs() && !none.has_outputs());
        for (name, expected) in [
            ("x-user-id", true),
            ("x_user_id", true),
            ("x-user_id", true),
            ("x-user", false),
            ("x_user", false),
            ("", false),
        ] {
            assert_eq!((some.is_output(name), none.is_output(name)), (expected, false), "{name}");
        }
    }
}
