//! `tokens:` - whose JWTs are accepted, and by which keys.

use std::time::Duration;

use super::checker::Checker;
use super::issue::{ConfigIssue, Errors};
use super::walk::Fields;
use super::yaml::Decode;
use super::{Node, PlugConfig};
use crate::identity::TrustDomain;
use crate::policy::canonical::is_stripped;

/// One issuer of JWTs.
///
/// A token is only ever checked with the keys of the issuer it names.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct IssuerConfig {
    /// The exact `iss`.
    pub issuer: String,
    /// Accepted audiences: a token must carry at least one. Never empty, but with `dangerous_any_audience`.
    pub audiences: Vec<String>,
    /// Whether tokens for everybody else are accepted too, and those without `aud`. No file can say so: it is what a rule of
    /// a `RequestAuthentication` without `audiences` means in compat mode. Default `false`.
    pub dangerous_any_audience: bool,
    /// Where the keys are: `{ file: keys.json }`, `{ inline: '{"keys":[...]}' }`, `{ url: "https://idp.example/keys" }` or `{ discovery: true }`, see
    /// [`FetchedKeysConfig`](crate::token::FetchedKeysConfig). `{ jwt_svid: { file: bundle.json } }` accepts the JWT-SVIDs
    /// of the trust domain that `issuer` names, `spiffe://TRUST_DOMAIN`, whatever their `iss`.
    pub jwks: PlugConfig,
    /// Accepted signature algorithms, exact. Default: RS256, PS256, ES256, ES384, EdDSA; RS384, RS512, PS384 and PS512
    /// can be chosen. `none` and HS* are never accepted.
    pub algorithms: Vec<String>,
    /// Tolerated clock difference for `exp` and `nbf`. Default 30 s, range 0 to 60 s.
    pub leeway: Duration,
    /// Longest accepted `exp - iat` (or `exp - now` without `iat`). Default 24 h, range 1 s to 366 days.
    pub max_lifetime: Duration,
    /// Accepted `typ` headers, case-insensitive and without `application/`; a token without `typ` counts as `JWT`.
    /// Default: `JWT` and `at+jwt`; an issuer that varies takes more. Of JWT-SVIDs their specification decides.
    pub types: Vec<String>,
    /// Headers that may carry the token. Default, if there is no other place either: `Authorization: Bearer` and the
    /// query parameter `access_token`; what is written here stands instead of both. (Istio `fromHeaders`)
    ///
    /// A bearer token in `Authorization` of an issuer that does not take it there is refused, not left alone.
    pub from_headers: Vec<TokenHeader>,
    /// Query parameters that may carry the token. Whoever logs URLs logs it. (Istio `fromParams`)
    pub from_params: Vec<String>,
    /// Cookies that may carry the token. Browsers send them unasked: whoever takes tokens there must know by other means
    /// that a request was meant. (Istio `fromCookies`)
    pub from_cookies: Vec<String>,
    /// The header that the handler finds the verified claims in, as they stand in the token: base64url of JSON. No caller
    /// can bring it. (Istio `outputPayloadToHeader`)
    pub output_payload_to_header: Option<String>,
    /// Claims that the handler finds in headers, which no caller can bring. (Istio `outputClaimToHeaders`)
    pub output_claim_to_headers: Vec<ClaimHeader>,
    /// Whether the handler gets the token too. Default `false`: it is taken from the request. (Istio
    /// `forwardOriginalToken`)
    pub forward_original_token: bool,
}

/// A header that may carry a token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenHeader {
    /// Its name, case-insensitive.
    pub name: String,
    /// What stands before the token, exact, with its space: `Bearer `. Default: nothing.
    pub prefix: String,
}

/// A header that a claim is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimHeader {
    /// Its name: letters, digits and `-`.
    pub header: String,
    /// The claim; `a.b` is the member `b` of the claim `a`, unless there is a claim `a.b`. Strings, whole numbers and
    /// booleans are written; a claim that is missing or of another type leaves the header out.
    pub claim: String,
}

impl TokenHeader {
    /// A header whose value is `prefix` and a token.
    pub fn new(name: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self { name: name.into(), prefix: prefix.into() }
    }
}

impl ClaimHeader {
    /// Writes `claim` to `header`.
    pub fn new(header: impl Into<String>, claim: impl Into<String>) -> Self {
        Self { header: header.into(), claim: claim.into() }
    }
}

/// Headers that mean something to HTTP or to the mesh: a claim there would speak for somebody else.
const RESERVED: [&str; 21] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-request-id",
    "grpc-timeout",
];

impl IssuerConfig {
    /// Every algorithm that can be accepted: asymmetric ones only.
    pub const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

    /// The query parameter that is looked at by default. (RFC 6750 2.3, Istio)
    pub const ACCESS_TOKEN: &str = "access_token";

    /// An issuer with every default.
    pub fn new(issuer: impl Into<String>, audiences: Vec<String>, jwks: PlugConfig) -> Self {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        Self {
            issuer: issuer.into(),
            audiences,
            dangerous_any_audience: false,
            jwks,
            algorithms: words(&["RS256", "PS256", "ES256", "ES384", "EdDSA"]),
            leeway: Duration::from_secs(30),
            max_lifetime: Duration::from_secs(24 * 3600),
            types: words(&["JWT", "at+jwt"]),
            from_headers: Vec::new(),
            from_params: Vec::new(),
            from_cookies: Vec::new(),
            output_payload_to_header: None,
            output_claim_to_headers: Vec::new(),
            forward_original_token: false,
        }
    }

    /// The trust domain whose JWT-SVIDs are accepted.
    ///
    /// Where the keys are those of `jwt_svid`. (JWT-SVID 3)
    pub fn trust_domain(&self) -> Option<&str> {
        (self.jwks.kind == "jwt_svid").then(|| self.issuer.strip_prefix("spiffe://")).flatten()
    }

    /// Whether its tokens are taken from where they are by default: `Authorization: Bearer` and `?access_token=`.
    pub fn has_default_places(&self) -> bool {
        self.from_headers.is_empty() && self.from_params.is_empty() && self.from_cookies.is_empty()
    }

    pub(super) fn check(&self, at: &mut Checker<'_>) {
        if self.issuer.is_empty() {
            at.error("issuer", "the issuer cannot be empty");
        }
        let lists = [("audiences", &self.audiences), ("algorithms", &self.algorithms), ("types", &self.types)];
        for (field, list) in lists {
            let any = field == "audiences" && self.dangerous_any_audience;
            if list.is_empty() && !any && !at.has_gaps(field, 0) {
                at.error(field, "at least one is required");
            }
            for (index, _) in list.iter().enumerate().filter(|(_, item)| item.is_empty()) {
                at.error(&format!("{field}[{index}]"), "cannot be empty");
            }
        }
        for (index, algorithm) in self.algorithms.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            if !Self::ALGORITHMS.contains(&algorithm.as_str()) {
                let message = format!("`{algorithm}` is never accepted; use one of {}", Self::ALGORITHMS.join(", "));
                at.error(&format!("algorithms[{index}]"), message);
            }
        }
        if self.jwks.kind == "jwt_svid" && self.trust_domain().is_none_or(|name| TrustDomain::parse(name).is_err()) {
            at.error("issuer", "JWT-SVIDs are accepted of a trust domain: expected `spiffe://TRUST_DOMAIN`");
        }
        self.check_locations(at);
        at.range("leeway", self.leeway, Duration::ZERO..=Duration::from_secs(60));
        at.range("max_lifetime", self.max_lifetime, Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 3600));
    }

    /// What is wrong with values that came from no `mesh.yaml`: each by the path of its field.
    pub(crate) fn issues(&self) -> Vec<ConfigIssue> {
        let mut errors = Errors::default();
        self.check(&mut Checker::new(None, false, &mut errors));
        errors.issues().to_vec()
    }

    fn check_locations(&self, at: &mut Checker<'_>) {
        for (index, header) in self.from_headers.iter().enumerate() {
            let field = format!("from_headers[{index}]");
            if !is_header(&header.name) || is_stripped(&header.name.to_ascii_lowercase()) {
                at.error(&format!("{field}.name"), "expected the name of a header that reaches this far");
            }
            if header.prefix.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
                at.error(&format!("{field}.prefix"), "expected printable characters");
            }
            if self.from_headers.iter().take(index).any(|other| other == header) {
                at.error(&field, "the same location twice");
            }
        }
        for (index, param) in self.from_params.iter().enumerate() {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if param.is_empty() || !param.bytes().all(plain) {
                at.error(&format!("from_params[{index}]"), "expected letters, digits, `-`, `.`, `_` and `~`");
            }
        }
        for (index, cookie) in self.from_cookies.iter().enumerate() {
            if !is_header(cookie) {
                at.error(&format!("from_cookies[{index}]"), "expected the name of a cookie");
            }
        }
        if let Some(Err(why)) = self.output_payload_to_header.as_deref().map(check_output) {
            at.error("output_payload_to_header", why);
        }
        for (index, to) in self.output_claim_to_headers.iter().enumerate() {
            let field = format!("output_claim_to_headers[{index}]");
            let others = self.output_claim_to_headers.iter().take(index).map(|other| &other.header);
            let mut others = others.chain(&self.output_payload_to_header);
            if let Err(why) = check_output(&to.header) {
                at.error(&format!("{field}.header"), why);
            } else if others.any(|other| other.eq_ignore_ascii_case(&to.header)) {
                at.error(&format!("{field}.header"), "another claim is written to this header");
            }
            if to.claim.is_empty() {
                at.error(&format!("{field}.claim"), "cannot be empty");
            }
        }
    }
}

/// Whether claims may be written to a header of this name.
fn check_output(name: &str) -> Result<(), &'static str> {
    let name = name.to_ascii_lowercase();
    if !is_header(&name) || name.contains('_') {
        return Err("expected letters, digits and `-`");
    }
    if RESERVED.contains(&&*name) || name.starts_with("grpc-") || is_stripped(&name) {
        return Err("this header has a meaning of its own");
    }
    Ok(())
}

/// A field name; cookies are called so too. (RFC 9110 5.6.2, RFC 6265 4.1.1)
fn is_header(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

impl Decode for TokenHeader {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let (name, prefix) = (fields.required("name"), fields.or("prefix", String::new()));
        fields.finish();
        Some(Self { name: name?, prefix })
    }
}

impl Decode for ClaimHeader {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let (header, claim) = (fields.required("header"), fields.required("claim"));
        fields.finish();
        Some(Self { header: header?, claim: claim? })
    }
}

impl Decode for IssuerConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let issuer = fields.required::<String>("issuer");
        let (audiences, jwks) = (fields.required("audiences"), fields.required("jwks"));
        let (algorithms, types) = (fields.optional("algorithms"), fields.optional("types"));
        let (leeway, max_lifetime) = (fields.optional("leeway"), fields.optional("max_lifetime"));
        let (from_headers, from_params) = (fields.optional("from_headers"), fields.optional("from_params"));
        let (from_cookies, payload) = (fields.optional("from_cookies"), fields.optional("output_payload_to_header"));
        let output_claim_to_headers = fields.optional("output_claim_to_headers");
        let forward_original_token = fields.or("forward_original_token", false);
        fields.finish();
        let default = Self::new(issuer?, audiences?, jwks?);
        Some(Self {
            algorithms: algorithms.unwrap_or(default.algorithms),
            leeway: leeway.unwrap_or(default.leeway),
            max_lifetime: max_lifetime.unwrap_or(default.max_lifetime),
            types: types.unwrap_or(default.types),
            from_headers: from_headers.unwrap_or_default(),
            from_params: from_params.unwrap_or_default(),
            from_cookies: from_cookies.unwrap_or_default(),
            output_payload_to_header: payload,
            output_claim_to_headers: output_claim_to_headers.unwrap_or_default(),
            forward_original_token,
            ..default
        })
    }
}
