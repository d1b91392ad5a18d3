//! Keys that are fetched, in virtual time: outage, rotation, withdrawal, floods of unknown keys. (security.md 2, rows
//! 11 and 16 to 18; reliability F20, F21)

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::*;
use crate::config::{IssuerConfig, Workload};
use crate::identity::TrustDomain;
use crate::plugin::Plugin;
use crate::rng::Rng;
use crate::telemetry::KeyLookup;
use crate::token::testkit::{ISSUER, Provider, TestKey, claims, now};
use crate::token::{Presented, Refused};

const URL: &str = "https://idp.example/keys";
const CONFIGURATION: &str = "https://idp.example/.well-known/openid-configuration";
const MINUTE: Duration = Duration::from_secs(60);

struct Service {
    verifier: TokenVerifier,
    metrics: Arc<Metrics>,
    _issuer: Issuer,
}

impl Service {
    /// A service that fetches its keys from `provider`.
    async fn start(provider: &Arc<Provider>, jwks: Value) -> Result<Self, String> {
        let (kind, settings) = jwks.as_object().unwrap().iter().next().unwrap();
        let jwks = PlugConfig::new(kind, settings);
        let mut errors = Errors::default();
        let registry = Registry::new(&[Plugin::new("test").fetch(provider.clone())], &mut errors);
        let mut context = Context::new(Workload::new("orders", "shop"), TrustDomain::parse("td").unwrap());
        (context.fetch, context.rng) = (registry.fetch().cloned(), Rng::seeded(7));
        let context = of_issuer(&context, ISSUER);
        let metrics = Arc::new(Metrics::default());
        let issuer = match registry.key_source(&jwks, &context, &mut errors) {
            Some(source) => watch(ISSUER, &jwks, source, &context, &metrics, &mut errors).await,
            None => None,
        };
        let issuer = errors.finish(issuer).map_err(|error| error.to_string())?;
        let config = IssuerConfig::new(ISSUER, vec!["orders".to_owned()], jwks);
        let verifier = TokenVerifier::default().with(config, issuer.keys.clone());
        Ok(Self { verifier, metrics, _issuer: issuer })
    }

    async fn fetching(provider: &Arc<Provider>, options: Value) -> Self {
        let mut settings = json!({ "uri": URL });
        settings.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        Self::start(provider, json!({ "url": settings })).await.unwrap()
    }

    fn judge(&self, token: &str) -> Result<(), Refused> {
        self.verifier.judge(token, Presented::default(), now()).map(drop)
    }

    fn verdict(&self, token: &str) -> Result<(), TokenError> {
        self.judge(token).map_err(|refused| refused.error)
    }

    fn updates(&self, result: UpdateResult) -> u64 {
        self.metrics.runtime.key_updates(result)
    }
}

fn set(keys: &[(&TestKey, &str)]) -> Value {
    json!({ "keys": keys.iter().map(|(key, kid)| key.jwk(kid)).collect::<Vec<_>>() })
}

fn provider(document: &Value) -> Arc<Provider> {
    let provider = Arc::new(Provider::default());
    provider.serve(URL, document);
    provider
}

fn token(key: &TestKey, kid: &str) -> String {
    key.sign(&json!({ "alg": "ES256", "kid": kid }).to_string(), &claims().to_string())
}

/// A token that names a key, and no more than that.
fn junk(kid: usize) -> String {
    token_of(&format!("junk-{kid}"))
}

fn token_of(kid: &str) -> String {
    use crate::token::testkit::b64;
    let header = json!({ "alg": "ES256", "kid": kid }).to_string();
    format!("{}.{}.{}", b64(header), b64(claims().to_string()), b64([1; 64]))
}

#[tokio::test(start_paused = true)]
async fn row_18_an_outage_refuses_nobody_until_the_keys_are_too_old_and_then_everybody() {
    let key = TestKey::es256();
    let provider = provider(&set(&[(&key, "k")]));
    let patient = Service::fetching(&provider, json!({})).await;
    // Control: with another bound the same outage ends otherwise.
    let strict = Service::fetching(&provider, json!({ "max_stale": "30m" })).await;
    let lax = Service::fetching(&provider, json!({ "max_stale": "24h" })).await;
    let good = token(&key, "k");
    provider.fail();
    let begun = Instant::now();
    for minute in 0..=60 {
        sleep_until(begun + minute * MINUTE).await;
        assert_eq!(patient.verdict(&good), Ok(()), "minute {minute}");
    }
    assert_eq!(strict.verdict(&good), Err(TokenError::KeysStale));
    assert!(patient.updates(UpdateResult::Error) > 10);
    sleep_until(begun + 121 * MINUTE).await;
    assert_eq!(patient.verdict(&good), Err(TokenError::KeysStale));
    assert_eq!(patient.updates(UpdateResult::Stale), 1);
    assert_eq!(lax.verdict(&good), Ok(()));
    // There is no key to fall back to: not even the one that was good is tried again before it is confirmed.
    sleep(600 * MINUTE).await;
    assert_eq!(patient.verdict(&good), Err(TokenError::KeysStale));
    provider.serve(URL, &set(&[(&key, "k")]));
    sleep(6 * MINUTE).await;
    assert_eq!(patient.verdict(&good), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn row_17_a_flood_of_unknown_keys_asks_the_provider_once_in_30_seconds() {
    let key = TestKey::es256();
    let provider = provider(&set(&[(&key, "k")]));
    let service = Service::fetching(&provider, json!({ "refresh": "1h" })).await;
    let begun = Instant::now();
    let first = provider.asked().len();
    for n in 0..10_000 {
        assert_eq!(service.verdict(&junk(n)), Err(TokenError::UnknownKey));
        if n % 1000 == 0 {
            sleep(Duration::from_millis(100)).await;
        }
    }
    for n in 0..900 {
        assert_eq!(service.verdict(&junk(20_000 + n)), Err(TokenError::UnknownKey));
        sleep(Duration::from_millis(100)).await;
    }
    let seconds = begun.elapsed().as_secs();
    let asked: Vec<_> = provider.asked().split_off(first);
    assert!((3..=4).contains(&asked.len()), "{} in {seconds} s", asked.len());
    assert!(asked.windows(2).all(|pair| pair[1].0 - pair[0].0 >= Duration::from_secs(30)));
    assert!(service.metrics.runtime.key_lookups(KeyLookup::Limited) > 10_000);
    assert_eq!(service.verdict(&token(&key, "k")), Ok(()));
    // Control: a source that is asked without this limit asks the provider each time.
    let source =
        crate::token::FetchedKeys::new(crate::token::FetchedKeysConfig::new(URL), provider.clone(), Rng::seeded(1));
    let mut updates = source.watch();
    let before = provider.asked().len();
    for _ in 0..20 {
        let looked = source.refresh();
        drop(crate::mesh::next(&mut updates).await);
        drop(looked);
    }
    assert_eq!(provider.asked().len() - before, 20);
}

#[tokio::test(start_paused = true)]
async fn row_17_a_key_that_was_just_looked_for_does_not_use_up_the_next_lookup() {
    let (old, new) = (TestKey::es256(), TestKey::es256());
    let provider = provider(&set(&[(&old, "old")]));
    let service = Service::fetching(&provider, json!({ "refresh": "1h" })).await;
    assert!(service.judge(&token_of("gone")).unwrap_err().keys.is_some());
    sleep(Duration::from_secs(31)).await;
    assert!(service.judge(&token_of("gone")).unwrap_err().keys.is_none());
    assert_eq!(service.metrics.runtime.key_lookups(KeyLookup::Repeated), 1);
    provider.serve(URL, &set(&[(&old, "old"), (&new, "new")]));
    service.judge(&token(&new, "new")).unwrap_err().keys.unwrap().await;
    assert_eq!(service.verdict(&token(&new, "new")), Ok(()));
    // It is forgotten after a while: an issuer may sign before it publishes.
    sleep(Duration::from_secs(61)).await;
    assert!(service.judge(&token_of("gone")).unwrap_err().keys.is_some());
}

#[tokio::test(start_paused = true)]
async fn row_17_a_new_key_is_accepted_within_a_second_and_all_who_wait_share_one_fetch() {
    let (old, new) = (TestKey::es256(), TestKey::es256());
    let provider = Provider::slow(Duration::from_millis(200));
    provider.serve(URL, &set(&[(&old, "old")]));
    let provider = Arc::new(provider);
    let service = Service::fetching(&provider, json!({})).await;
    let token = token(&new, "new");
    provider.serve(URL, &set(&[(&new, "new"), (&old, "old")]));
    let before = provider.asked().len();
    let refused: Vec<Refused> = (0..100).map(|_| service.judge(&token).unwrap_err()).collect();
    let begun = Instant::now();
    let waiting: Vec<_> = refused.into_iter().filter_map(|refused| refused.keys).collect();
    assert_eq!(waiting.len(), 64, "a bounded number waits, the others are refused at once");
    assert_eq!(service.metrics.runtime.key_lookups(KeyLookup::Crowded), 36);
    for keys in waiting {
        keys.await;
    }
    assert_eq!(service.verdict(&token), Ok(()));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(provider.asked().len() - before, 1);
    // Control: nobody waits for ever on a provider that does not answer.
    sleep(MINUTE).await;
    let slow = Arc::new(Provider::slow(Duration::from_secs(9)));
    slow.serve(URL, &set(&[(&old, "old")]));
    let service = Service::fetching(&slow, json!({})).await;
    let begun = Instant::now();
    service.judge(&token).unwrap_err().keys.unwrap().await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!(service.verdict(&token), Err(TokenError::UnknownKey));
}

#[tokio::test(start_paused = true)]
async fn row_17_a_dropped_key_is_refused_after_its_bound_and_the_servers_wish_counts_within_bounds() {
    let (old, new) = (TestKey::es256(), TestKey::es256());
    for (cache_control, options, bound, control) in [
        ("", json!({}), 300, 269),
        ("", json!({ "refresh": "1h" }), 3600, 3200),
        ("max-age=60", json!({}), 60, 50),
        ("no-store", json!({}), 30, 25),
        ("max-age=86400", json!({}), 900, 800),
    ] {
        let provider = provider(&set(&[]));
        provider.answer(URL, 200, cache_control, &set(&[(&old, "old"), (&new, "new")]));
        let service = Service::fetching(&provider, options).await;
        let token = token(&old, "old");
        provider.answer(URL, 200, cache_control, &set(&[(&new, "new")]));
        sleep(Duration::from_secs(control)).await;
        assert_eq!(service.verdict(&token), Ok(()), "{cache_control}: too early");
        sleep(Duration::from_secs(bound - control + 1)).await;
        assert_eq!(service.verdict(&token), Err(TokenError::UnknownKey), "{cache_control}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_that_did_not_change_forgets_no_verified_token_and_refreshes_are_not_in_step() {
    let key = TestKey::es256();
    let provider = provider(&set(&[(&key, "k")]));
    let service = Service::fetching(&provider, json!({})).await;
    let good = token(&key, "k");
    let first = service.verifier.verify(&good, now()).unwrap();
    sleep(60 * MINUTE).await;
    assert!(Arc::ptr_eq(&first, &service.verifier.verify(&good, now()).unwrap()));
    assert_eq!(service.updates(UpdateResult::Ok), 1);
    assert!(service.updates(UpdateResult::Unchanged) >= 12);
    let times: Vec<_> = provider.asked().into_iter().map(|(at, _)| at).collect();
    let pauses: std::collections::BTreeSet<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.len() > 6 && pauses.iter().all(|pause| (270..=300).contains(&pause.as_secs())), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn row_11_a_discovered_issuer_is_exactly_the_configured_one() {
    let key = TestKey::es256();
    let discovery = json!({ "discovery": true });
    let good = json!({ "issuer": ISSUER, "jwks_uri": URL, "token_endpoint": "https://idp.example/token" });
    let provider = provider(&set(&[(&key, "k")]));
    provider.serve(CONFIGURATION, &good);
    let service = Service::start(&provider, discovery.clone()).await.unwrap();
    assert_eq!(service.verdict(&token(&key, "k")), Ok(()));
    let changed = |name: &str, value: Value| {
        let mut document = good.clone();
        document[name] = value;
        document
    };
    for (document, why) in [
        (changed("issuer", json!("https://idp.example/")), "is not exactly the issuer"),
        (changed("issuer", json!("https://evil.example")), "is not exactly the issuer"),
        (changed("issuer", json!([ISSUER])), "is not exactly the issuer"),
        (changed("jwks_uri", json!("http://idp.example/keys")), "begins with `https://`"),
        (changed("jwks_uri", json!("file:///etc/passwd")), "begins with `https://`"),
        (changed("jwks_uri", json!("https://idp.example@evil.example/")), "without user information"),
        (changed("jwks_uri", Value::Null), "`jwks_uri` is missing"),
    ] {
        provider.serve(CONFIGURATION, &document);
        let error = Service::start(&provider, discovery.clone()).await.err().unwrap();
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn row_16_only_a_good_set_over_https_becomes_keys() {
    let key = TestKey::es256();
    for settings in [
        json!("http://idp.example/keys"),
        json!("ftp://idp.example/keys"),
        json!("idp.example/keys"),
        json!("https://user@idp.example/keys"),
        json!("https://idp.example/keys#a"),
        json!("https://"),
        json!({ "uri": URL, "refresh": "5s" }),
        json!({ "uri": URL, "max_stale": "1m" }),
        json!({ "uri": URL, "alow_private": true }),
        json!({}),
    ] {
        let provider = provider(&set(&[(&key, "k")]));
        assert!(Service::start(&provider, json!({ "url": settings })).await.is_err(), "{settings}");
        assert!(provider.asked().is_empty());
    }
    for (status, document, why) in [
        (302, set(&[(&key, "k")]), "status 302"),
        (500, set(&[(&key, "k")]), "status 500"),
        (200, json!({ "keys": [] }), "no key"),
        (200, json!({ "keys": [{ "kty": "oct", "k": "AAAA" }] }), "private"),
    ] {
        let provider = Arc::new(Provider::default());
        provider.answer(URL, status, "", &document);
        let error = Service::start(&provider, json!({ "url": URL })).await.err().unwrap();
        assert!(error.contains(why) && error.contains("no keys"), "{error}");
    }
    // An instant of trouble at start is no reason not to start.
    let provider = Arc::new(Provider::default());
    let late = Arc::clone(&provider);
    let start = tokio::spawn(async move { Service::start(&late, json!({ "url": URL })).await.map(drop) });
    sleep(Duration::from_secs(1)).await;
    provider.serve(URL, &set(&[(&key, "k")]));
    assert_eq!(start.await.unwrap(), Ok(()));
}
