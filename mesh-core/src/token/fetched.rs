//! The `url` and `discovery` key sources: an issuer's keys over HTTPS, renewed ahead of need.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use tokio::time::Instant;

use super::json::parse_object;
use super::{Jwks, JwksError, KeySource, KeyUpdate, KeyUpdates};
use crate::config::{Errors, Fields, Node};
use crate::fetch::{Fetch, FetchRequest, Fetched};
use crate::identity::{Looked, Looks, Watcher};
use crate::plugin::Context;
use crate::rng::Rng;
use crate::stream::unfold;

/// The server's own wish counts between these bounds.
const MIN_REFRESH: Duration = Duration::from_secs(30);
const MAX_REFRESH: Duration = Duration::from_secs(15 * 60);
/// After a failure; doubled at each further one, up to half a minute.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// What the very first fetch may take with its retries, before it is said that there are no keys.
const FIRST_KEYS: Duration = Duration::from_secs(5);

/// Where keys are fetched, and how often.
///
/// In YAML `jwks: { url: "https://idp.example/keys" }`, or with options
/// `jwks: { url: { uri: "https://idp.example/keys", refresh: 10m, max_stale: 4h } }`; `jwks: { discovery: true }`, or with
/// the same options but `uri`, takes the URL from the issuer's `/.well-known/openid-configuration`, whose `issuer` must be
/// the exact issuer. (OpenID Connect Discovery 4)
///
/// Fails open on the last good set until `max_stale`, then closed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedKeysConfig {
    /// The URL of the key set, or of the issuer's configuration.
    pub uri: Arc<str>,
    /// How often, where the server's `cache-control: max-age` says nothing else; that counts from 30 s to 15 min. Each
    /// interval is shortened by up to a tenth at random. Default 5 min, range 30 s to 1 h.
    pub refresh: Duration,
    /// For how long after its last confirmation a set is trusted while the server cannot be asked. Default 2 h, which
    /// outlives an outage of an hour; range 1 min to 24 h, at least `refresh`.
    pub max_stale: Duration,
    /// What one fetch may take, from name resolution to the last byte.
    ///
    /// Default 10 s, range 100 ms to 10 s. (Istio `timeout`)
    pub timeout: Duration,
    /// PEM authorities that alone are trusted for these fetches; default: those of the public web.
    pub ca: Option<PathBuf>,
    /// Whether the server may have a private or loopback address. Default `false`.
    pub allow_private: bool,
    /// Whether `http` is taken too, from loopback addresses alone. For tests. Default `false`.
    pub dangerous_allow_http: bool,
}

impl FetchedKeysConfig {
    /// Every default.
    pub fn new(uri: impl Into<Arc<str>>) -> Self {
        Self {
            uri: uri.into(),
            refresh: Duration::from_secs(300),
            max_stale: Duration::from_secs(2 * 3600),
            timeout: Duration::from_secs(10),
            ca: None,
            allow_private: false,
            dangerous_allow_http: false,
        }
    }

    fn options(mut self, mut fields: Fields<'_>, context: &Context) -> Option<Self> {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        self.refresh = fields.within("refresh", self.refresh, 30 * second..=hour);
        self.max_stale = fields.within("max_stale", self.max_stale, self.refresh.max(60 * second)..=24 * hour);
        self.timeout = fields.within("timeout", self.timeout, second / 10..=10 * second);
        self.ca = fields.optional::<PathBuf>("ca").map(|file| context.base_dir.join(file));
        self.allow_private = fields.or("allow_private", false);
        self.dangerous_allow_http = fields.or("dangerous_allow_http", false);
        fields.finish();
        Some(self)
    }

    fn request(&self, url: &str) -> FetchRequest {
        let mut request = FetchRequest::new(url);
        (request.max_bytes, request.timeout) = (Jwks::MAX_BYTES, self.timeout);
        request.ca.clone_from(&self.ca);
        (request.allow_private, request.allow_http_to_loopback) = (self.allow_private, self.dangerous_allow_http);
        request
    }
}

/// Keys that are fetched.
#[derive(Debug, Clone)]
pub struct FetchedKeys {
    config: Arc<FetchedKeysConfig>,
    /// Where `uri` is that of its configuration and not that of its keys.
    discovered: Option<Arc<str>>,
    fetch: Arc<dyn Fetch>,
    rng: Rng,
    looks: Looks,
}

impl FetchedKeys {
    /// The key set at `uri`.
    pub fn new(config: FetchedKeysConfig, fetch: Arc<dyn Fetch>, rng: Rng) -> Self {
        Self { config: Arc::new(config), discovered: None, fetch, rng, looks: Looks::default() }
    }

    /// The key set that the OpenID configuration at `uri` names.
    ///
    /// That must be the configuration of `issuer`.
    pub fn discovered(config: FetchedKeysConfig, issuer: Arc<str>, fetch: Arc<dyn Fetch>, rng: Rng) -> Self {
        Self { discovered: Some(issuer), ..Self::new(config, fetch, rng) }
    }

    /// Settings of `url`: a URL, or a mapping with it.
    pub(crate) fn from_node(node: &Node, context: &Context, errors: &mut Errors) -> Option<Arc<dyn KeySource>> {
        let before = errors.issues().len();
        let (config, at) = if let Some(uri) = node.as_str() {
            (FetchedKeysConfig::new(uri), node.place.clone())
        } else {
            let mut fields = Fields::of(node, errors)?;
            let (uri, at) = (fields.required::<String>("uri"), fields.place("uri"));
            let config = FetchedKeysConfig::new(uri.unwrap_or_default()).options(fields, context)?;
            (config, at)
        };
        if errors.issues().len() > before {
            return None;
        }
        if let Err(why) = check_url(&config.uri, config.dangerous_allow_http) {
            errors.push(&at, why);
            return None;
        }
        let fetch = fetcher(node, context, errors)?;
        Some(Arc::new(Self::new(config, fetch, context.rng.fork())))
    }

    /// Settings of `discovery`: `true`, or a mapping.
    pub(crate) fn discovery_from_node(
        node: &Node,
        context: &Context,
        errors: &mut Errors,
    ) -> Option<Arc<dyn KeySource>> {
        let Some(issuer) = context.issuer.clone() else {
            errors.push(&node.place, "discovery is for keys of an issuer");
            return None;
        };
        let config = FetchedKeysConfig::new(configuration_url(&issuer));
        let before = errors.issues().len();
        let config = match &node.value {
            crate::config::Value::Bool(true) => config,
            _ => config.options(Fields::of(node, errors)?, context)?,
        };
        if errors.issues().len() > before {
            return None;
        }
        if let Err(why) = check_url(&issuer, config.dangerous_allow_http) {
            errors.push(&node.place, format!("the issuer cannot be discovered: {why}"));
            return None;
        }
        let fetch = fetcher(node, context, errors)?;
        Some(Arc::new(Self::discovered(config, issuer, fetch, context.rng.fork())))
    }

    async fn get(&self, url: &str) -> Result<Fetched, JwksError> {
        let got = self.fetch.get(self.config.request(url)).await.map_err(|error| JwksError(error.to_string()))?;
        match got.status {
            200 => Ok(got),
            status => Err(JwksError(format!("the server answered with status {status}"))),
        }
    }

    /// Where the keys are.
    async fn jwks_uri(&self, issuer: &str) -> Result<Arc<str>, JwksError> {
        let refuse = |why: &str| JwksError(format!("the issuer's configuration {}: {why}", self.config.uri));
        let document = self.get(&self.config.uri).await.map_err(|error| refuse(&error.0))?;
        let mut members = parse_object(&document.body).map_err(refuse)?;
        // OpenID Connect Discovery 4.3: it must be exactly the issuer that was asked for.
        if members.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err(refuse("its `issuer` is not exactly the issuer"));
        }
        match members.remove("jwks_uri") {
            Some(Value::String(uri)) => {
                check_url(&uri, self.config.dangerous_allow_http)
                    .map_err(|why| refuse(&format!("`jwks_uri`: {why}")))?;
                Ok(uri.into())
            }
            _ => Err(refuse("`jwks_uri` is missing")),
        }
    }
}

/// The mesh's own fetcher, or a note that it has none.
fn fetcher(node: &Node, context: &Context, errors: &mut Errors) -> Option<Arc<dyn Fetch>> {
    if context.fetch.is_none() {
        let why =
            "keys are fetched over HTTP, which needs a plugin: start the mesh `.with(mesh_tower::fetch::plugin())`";
        errors.push(&node.place, why);
    }
    context.fetch.clone()
}

/// OpenID Connect Discovery 4: a slash at the end of the issuer goes before the path is added.
fn configuration_url(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer))
}

pub(crate) fn check_url(url: &str, allow_http: bool) -> Result<(), &'static str> {
    let rest = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => rest,
        (None, Some(rest)) if allow_http => rest,
        _ => return Err("expected a URL that begins with `https://`"),
    };
    if rest.is_empty() || url.bytes().any(|byte| !byte.is_ascii_graphic() || b"@#\\".contains(&byte)) {
        return Err("expected a URL with a host and without user information, fragment, spaces and backslashes");
    }
    Ok(())
}

impl KeySource for FetchedKeys {
    fn watch(&self) -> KeyUpdates {
        if self.config.dangerous_allow_http {
            let uri = without_query(&self.config.uri);
            tracing::warn!(target: "mesh", uri, "`dangerous_allow_http`: keys may come over plain HTTP from this machine");
        }
        unfold(Watch::new(self.clone()), Watch::step)
    }

    fn refresh(&self) -> Looked {
        self.looks.ask()
    }
}

/// What one watcher knows of what it fetched.
struct Watch {
    source: FetchedKeys,
    watcher: Watcher,
    jwks_uri: Option<Arc<str>>,
    /// When the set was confirmed last, and its hash.
    good: Option<(Instant, Vec<u8>)>,
    /// Whether it was said that the set is stale.
    stale: bool,
    failures: u32,
    next: Option<Instant>,
}

impl Watch {
    fn new(source: FetchedKeys) -> Self {
        let watcher = source.looks.watcher();
        Self { source, watcher, jwks_uri: None, good: None, stale: false, failures: 0, next: None }
    }

    async fn step(mut self) -> (KeyUpdate, Self) {
        let Some(next) = self.next else {
            let update = self.first().await;
            return (update, self);
        };
        let stale = self.stale_at().filter(|_| !self.stale);
        let until = stale.map_or(next, |stale| stale.min(next));
        self.watcher.wait(until.saturating_duration_since(Instant::now())).await;
        if stale.is_some_and(|stale| Instant::now() >= stale) {
            self.stale = true;
            let waited = self.source.config.max_stale;
            return (KeyUpdate::Stale(JwksError(format!("the keys were not confirmed for {waited:?}"))), self);
        }
        let update = self.fetch().await;
        (update, self)
    }

    /// The first set: an instant of trouble must not keep a service from starting.
    async fn first(&mut self) -> KeyUpdate {
        let give_up = Instant::now() + FIRST_KEYS;
        loop {
            let update = self.fetch().await;
            let next = self.next.filter(|next| *next < give_up);
            let (KeyUpdate::Failed(_), Some(next)) = (&update, next) else { return update };
            tokio::time::sleep_until(next).await;
        }
    }

    fn stale_at(&self) -> Option<Instant> {
        self.good.as_ref().map(|(confirmed, _)| *confirmed + self.source.config.max_stale)
    }

    async fn fetch(&mut self) -> KeyUpdate {
        let config = Arc::clone(&self.source.config);
        // What is confirmed is what the server had when it was asked.
        let asked = Instant::now();
        let got = self.keys().await;
        let now = Instant::now();
        match got {
            Ok((keys, hash, max_age)) => {
                self.failures = 0;
                let pause = max_age.map_or(config.refresh, |age| age.clamp(MIN_REFRESH, MAX_REFRESH));
                self.next = Some(now + pause.mul_f64(1.0 - 0.1 * self.source.rng.unit()));
                let same = !self.stale && self.good.as_ref().is_some_and(|(_, last)| *last == hash);
                (self.good, self.stale) = (Some((asked, hash)), false);
                if same { KeyUpdate::Unchanged } else { KeyUpdate::Keys(Arc::new(keys)) }
            }
            Err(error) => {
                self.jwks_uri = None;
                let pause = FIRST_RETRY.saturating_mul(1 << self.failures.min(16)).min(LAST_RETRY);
                self.failures = self.failures.saturating_add(1);
                self.next = Some(now + pause.mul_f64(1.0 - 0.5 * self.source.rng.unit()));
                KeyUpdate::Failed(error)
            }
        }
    }

    async fn keys(&mut self) -> Result<(Jwks, Vec<u8>, Option<Duration>), JwksError> {
        let uri = match (&self.source.discovered, &self.jwks_uri) {
            (None, _) => Arc::clone(&self.source.config.uri),
            (Some(_), Some(uri)) => Arc::clone(uri),
            (Some(issuer), None) => self.source.jwks_uri(issuer).await?,
        };
        let refuse = |error: JwksError| JwksError(format!("the key set {}: {error}", without_query(&uri)));
        let got = self.source.get(&uri).await.map_err(refuse)?;
        let keys = Jwks::parse(&got.body).map_err(refuse)?;
        let (hash, max_age) = (digest(&SHA256, &got.body).as_ref().to_vec(), got.max_age());
        self.jwks_uri = Some(uri);
        Ok((keys, hash, max_age))
    }
}

/// What may be logged of a URL.
fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(before, _)| before)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testkit::{Provider, TestKey};
    use super::*;

    const URI: &str = "https://idp.example/keys";

    /// Services that start together must not ask together: each pause is shortened at random, and never longer.
    #[tokio::test(start_paused = true)]
    async fn pauses_are_shortened_at_random() {
        let provider = Arc::new(Provider::default());
        let mut watch = Watch::new(FetchedKeys::new(FetchedKeysConfig::new(URI), provider.clone(), Rng::seeded(5)));
        for round in 0..20 {
            let set = json!({ "keys": [TestKey::es256().jwk("a")] });
            let pause = |watch: &Watch| watch.next.unwrap().duration_since(Instant::now()).as_secs_f64();
            for (cache_control, longest) in
                [("", 300.0), ("max-age=60", 60.0), ("max-age=1", 30.0), ("max-age=9999", 900.0), ("no-store", 30.0)]
            {
                provider.answer(URI, 200, cache_control, &set);
                watch.fetch().await;
                let found = pause(&watch);
                assert!((longest * 0.9..=longest).contains(&found), "round {round}, {cache_control}: {found}");
            }
            provider.fail();
            for longest in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
                assert!(matches!(watch.fetch().await, KeyUpdate::Failed(_)));
                let found = pause(&watch);
                assert!((longest * 0.5..=longest).contains(&found), "round {round}: {found} after {longest}");
            }
        }
    }

    #[test]
    fn urls_are_https_with_a_host_and_nothing_that_misleads() {
        for (url, https, http) in [
            ("https://idp.example/keys?a=b", true, true),
            ("https://idp.example:8443", true, true),
            ("http://127.0.0.1:1/keys", false, true),
            ("https://", false, false),
            ("http://", false, false),
            ("HTTPS://idp.example", false, false),
            ("ftp://idp.example", false, false),
            ("idp.example", false, false),
            ("", false, false),
            ("https://user@idp.example", false, false),
            ("https://idp.example/#x", false, false),
            ("https://idp.example\\@other", false, false),
            ("https://idp.example/ x", false, false),
            ("https://idp.example/\u{e9}", false, false),
            ("http://127.0.0.1:1/ x", false, false),
        ] {
            assert_eq!(
                [check_url(url, false), check_url(url, true)].map(|checked| checked.is_ok()),
                [https, http],
                "{url}"
            );
        }
        for (issuer, expected) in [
            ("https://idp.example", "https://idp.example/.well-known/openid-configuration"),
            ("https://idp.example/a/", "https://idp.example/a/.well-known/openid-configuration"),
        ] {
            assert_eq!(configuration_url(issuer), expected);
        }
        for (url, shown) in [("https://a/b?secret=c?d", "https://a/b"), ("https://a/b", "https://a/b")] {
            assert_eq!(without_query(url), shown);
        }
    }
}
