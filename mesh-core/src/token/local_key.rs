//! The `local_key` source: this process signs the tokens for its own calls.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::signing_key::SigningKey;
use super::{TokenSource, TokenSourceError};
use crate::clock::WallClock;
use crate::config::{Decode, Errors, Fields, Node};
use crate::identity::SpiffeId;
use crate::plugin::Context;
use crate::rng::Rng;
use crate::snapshot::Snapshot;

/// No key file is larger.
const MAX_BYTES: u64 = 16 * 1024;

/// What is signed, and with which key.
///
/// In YAML `token: { local_key: { key: key.pem, issuer: "https://orders.example", audience: payments } }`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalKeyConfig {
    /// A private key: PEM (PKCS#8, SEC1, PKCS#1), or a JWK of an elliptic curve.
    ///
    /// P-256, P-384, Ed25519 or RSA. Watched: a new key signs from the next look on; its public half must be with the
    /// peers by then.
    pub key: PathBuf,
    /// `iss`.
    pub issuer: String,
    /// `sub`. Default: the workload's own SPIFFE ID.
    pub subject: String,
    /// `aud`, one or several.
    pub audience: Vec<String>,
    /// How long a token lasts; the next is made after half of it to seven tenths. Default 5 min, range 10 s to 1 h.
    pub ttl: Duration,
    /// `kid`. Default: that of the JWK, else the key's thumbprint. (RFC 7638)
    pub key_id: Option<String>,
    /// `typ`. Default `JWT`.
    pub token_type: String,
}

impl LocalKeyConfig {
    /// Every default.
    pub fn new(
        key: impl Into<PathBuf>,
        issuer: impl Into<String>,
        subject: impl Into<String>,
        audience: Vec<String>,
    ) -> Self {
        let (key, issuer, subject) = (key.into(), issuer.into(), subject.into());
        let (ttl, token_type) = (Duration::from_secs(300), "JWT".to_owned());
        Self { key, issuer, subject, audience, ttl, key_id: None, token_type }
    }

    fn from_node(node: &Node, context: &Context, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let (key, issuer) = (fields.required::<PathBuf>("key"), fields.required::<String>("issuer"));
        let (subject, audience) = (fields.optional::<String>("subject"), fields.required::<Audience>("audience"));
        let second = Duration::from_secs(1);
        let ttl = fields.within("ttl", 300 * second, 10 * second..=3600 * second);
        let (key_id, token_type) = (fields.optional::<String>("key_id"), fields.or("type", "JWT".to_owned()));
        fields.finish();
        let workload = &context.workload;
        let own = SpiffeId::for_workload(&context.trust_domain, &workload.namespace, &workload.service_account);
        let subject = subject.or_else(|| own.ok().map(|id| id.to_string()));
        let (key, issuer, audience) = (context.base_dir.join(key?), issuer?, audience?.0);
        let Some(subject) = subject else {
            errors.push(&node.place, "the workload has no SPIFFE ID of its own: `subject` is required");
            return None;
        };
        let texts = [&issuer, &subject, &token_type].into_iter().chain(&audience).chain(&key_id);
        if audience.is_empty() || texts.into_iter().any(String::is_empty) {
            errors.push(&node.place, "issuer, subject, audience, key_id and type cannot be empty");
            return None;
        }
        Some(Self { key, issuer, subject, audience, ttl, key_id, token_type })
    }
}

/// A string or a list of them.
struct Audience(Vec<String>);

impl Decode for Audience {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match node.as_str() {
            Some(audience) => Some(Self(vec![audience.to_owned()])),
            None => Vec::decode(node, errors).map(Self),
        }
    }
}

type Current = Snapshot<Result<Arc<str>, TokenSourceError>>;

/// Tokens of this process's own making, renewed ahead of their end.
///
/// Fails closed: without a key that can be read there is no token. A key file that breaks later leaves the last good key
/// in force. The key's bytes are wiped once it is read, and nothing shows it.
pub struct LocalKey {
    current: Arc<Current>,
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

impl LocalKey {
    /// Reads the key, and makes tokens until this source is dropped.
    ///
    /// Looks at it again every `interval`. Needs a Tokio runtime.
    pub fn open(config: LocalKeyConfig, interval: Duration, clock: Arc<dyn WallClock>, rng: Rng) -> Self {
        let mut minter = Minter { config, clock, rng, key: None, seen: None, renew: UNIX_EPOCH };
        let first = minter.look().unwrap_or_else(|| Err(minter.refuse("was not read")));
        let current = Arc::new(Snapshot::new(first));
        tokio::spawn(renew(minter, interval, Arc::downgrade(&current)));
        Self { current }
    }

    /// Settings of `local_key`.
    pub(crate) fn from_node(node: &Node, context: &Context, errors: &mut Errors) -> Option<Arc<dyn TokenSource>> {
        let config = LocalKeyConfig::from_node(node, context, errors)?;
        if tokio::runtime::Handle::try_current().is_err() {
            errors.push(&node.place, "tokens are renewed in the background: start the mesh in a Tokio runtime");
            return None;
        }
        let (interval, clock) = (context.poll_interval, Arc::clone(&context.clock));
        Some(Arc::new(Self::open(config, interval, clock, context.rng.fork())))
    }
}

impl TokenSource for LocalKey {
    fn token(&self) -> Result<Arc<str>, TokenSourceError> {
        self.current.peek().value().clone()
    }
}

async fn renew(mut minter: Minter, interval: Duration, current: Weak<Current>) {
    loop {
        tokio::time::sleep(interval).await;
        if current.strong_count() == 0 {
            return;
        }
        // Reading and signing block for a moment: not on a thread that serves requests.
        let looked = tokio::task::spawn_blocking(move || {
            let made = minter.look();
            (minter, made)
        });
        let Ok((back, made)) = looked.await else { return };
        minter = back;
        let (Some(made), Some(current)) = (made, current.upgrade()) else { continue };
        match (&made, current.load().value()) {
            (Err(error), Ok(_)) => tracing::warn!(target: "mesh", %error, "the last good token stays in force"),
            _ => _ = current.publish(made),
        }
    }
}

struct Minter {
    config: LocalKeyConfig,
    clock: Arc<dyn WallClock>,
    rng: Rng,
    key: Option<SigningKey>,
    /// The hash of what the file held when it was read last: not the key itself.
    seen: Option<Result<Vec<u8>, String>>,
    /// When the next token is due.
    renew: SystemTime,
}

impl Minter {
    /// A new token, if the key has changed or the last one has lived for long enough.
    fn look(&mut self) -> Option<Result<Arc<str>, TokenSourceError>> {
        let contents = read(&self.config.key);
        let seen = contents.as_ref().map(|bytes| digest(&SHA256, bytes).as_ref().to_vec()).map_err(Clone::clone);
        let changed = self.seen.as_ref() != Some(&seen);
        self.seen = Some(seen);
        if changed {
            match contents.and_then(|bytes| SigningKey::parse(&bytes, self.config.key_id.as_deref())) {
                Ok(key) => self.key = Some(key),
                Err(why) => return Some(Err(self.refuse(&why))),
            }
        } else if self.key.is_none() {
            return None;
        }
        let now = self.clock.now();
        if !changed && now < self.renew {
            return None;
        }
        let token = self.mint(now).map_err(|why| self.refuse(&why));
        if token.is_ok() {
            let share = 0.5 + 0.2 * self.rng.unit();
            self.renew = now + self.config.ttl.mul_f64(share);
        }
        Some(token)
    }

    fn mint(&self, now: SystemTime) -> Result<Arc<str>, String> {
        let key = self.key.as_ref().ok_or("was not read")?;
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|since| since.as_secs());
        let issued = seconds(now).map_err(|_| "cannot sign before 1970")?;
        let audience = match &*self.config.audience {
            [one] => json!(one),
            several => json!(several),
        };
        let header = json!({ "alg": key.algorithm(), "kid": key.id(), "typ": self.config.token_type });
        let claims = json!({
            "iss": self.config.issuer, "sub": self.config.subject, "aud": audience, "iat": issued,
            "exp": issued + self.config.ttl.as_secs(), "jti": Uuid::now_v7().to_string(),
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = key.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
    }

    fn refuse(&self, why: &str) -> TokenSourceError {
        TokenSourceError(format!("the key {} {why}", self.config.key.display()))
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(failed)?;
    // All at once: a buffer that grows leaves pieces of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_BYTES + 1).unwrap_or(usize::MAX)));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("is larger than {MAX_BYTES} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::signing_key::tests::{RFC7515, RFC8037};
    use super::super::testkit::{issuer, keys};
    use super::super::{TokenError, TokenVerifier};
    use super::*;
    use crate::clock::ManualClock;
    use crate::identity::testkit::context;

    fn config(path: &Path) -> LocalKeyConfig {
        LocalKeyConfig::new(path, "https://idp.example", "spiffe://td/ns/shop/sa/web", vec!["orders".to_owned()])
    }

    fn configured(yaml: &str) -> Result<LocalKeyConfig, String> {
        let context = context(Path::new("/etc/mesh"), Arc::new(ManualClock::at_unix(0)));
        super::super::testkit::configured(yaml, &context, LocalKeyConfig::from_node)
    }

    #[test]
    fn settings_are_read_to_the_last_field() {
        let least = "key: key.pem, issuer: i, audience: a";
        let expected =
            LocalKeyConfig::new("/etc/mesh/key.pem", "i", "spiffe://td/ns/shop/sa/web", vec!["a".to_owned()]);
        assert_eq!(configured(&format!("{{ {least} }}")).unwrap(), expected);
        let all = "{ key: /k, issuer: i, subject: s, audience: [a, b], ttl: 10s, key_id: k, type: at+jwt }";
        let several = ["a", "b"].map(str::to_owned).to_vec();
        let expected = LocalKeyConfig {
            ttl: Duration::from_secs(10),
            key_id: Some("k".to_owned()),
            token_type: "at+jwt".to_owned(),
            ..LocalKeyConfig::new("/k", "i", "s", several)
        };
        assert_eq!(configured(all).unwrap(), expected);
        let ttl = |ttl: &str| configured(&format!("{{ {least}, ttl: {ttl} }}")).map(|config| config.ttl.as_secs());
        assert_eq!((ttl("10s"), ttl("1h")), (Ok(10), Ok(3600)));
        for (ttl, named) in [(ttl("9s"), "ttl"), (ttl("3601s"), "ttl")] {
            assert!(ttl.unwrap_err().contains(named));
        }
        for (yaml, expected) in [
            ("{ issuer: i, audience: a }", "key: "),
            ("{ key: k, audience: a }", "issuer: "),
            ("{ key: k, issuer: i }", "audience: "),
            ("{ key: k, issuer: i, audience: a, x: y }", "unknown field"),
            ("{ key: k, issuer: i, audience: [] }", "cannot be empty"),
            ("{ key: k, issuer: i, audience: [a, ''] }", "cannot be empty"),
            ("{ key: k, issuer: '', audience: a }", "cannot be empty"),
            ("{ key: k, issuer: i, audience: a, subject: '' }", "cannot be empty"),
            ("{ key: k, issuer: i, audience: a, key_id: '' }", "cannot be empty"),
            ("{ key: k, issuer: i, audience: a, type: '' }", "cannot be empty"),
        ] {
            let error = configured(yaml).unwrap_err();
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }

    #[test]
    fn a_key_file_is_read_to_the_last_byte_that_it_may_have() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(read(&path).unwrap_err().contains("cannot be read"));
        for (length, whole) in [(0, true), (MAX_BYTES, true), (MAX_BYTES + 1, false)] {
            let contents = vec![b'x'; usize::try_from(length).unwrap()];
            std::fs::write(&path, &contents).unwrap();
            assert_eq!(read(&path).ok().map(|bytes| *bytes == contents), whole.then_some(true), "{length}");
        }
    }

    #[tokio::test]
    async fn what_is_signed_is_what_was_configured() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
        let open = |config| LocalKey::open(config, Duration::from_secs(1), clock.clone(), Rng::seeded(3));
        let error = open(config(&path)).token().unwrap_err().0;
        assert!(error.contains("key cannot be read"), "{error}");
        std::fs::write(&path, RFC7515).unwrap();
        for (audience, written) in [(vec!["a"], json!("a")), (vec!["a", "b"], json!(["a", "b"]))] {
            let audience = audience.into_iter().map(str::to_owned).collect();
            let token = open(LocalKeyConfig { audience, ..config(&path) }).token().unwrap();
            let parts: Vec<Value> = token
                .split('.')
                .take(2)
                .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
                .collect();
            assert_eq!(parts[0], json!({ "alg": "ES256", "kid": "named", "typ": "JWT" }));
            let mut claims = parts[1].clone();
            assert!(claims.as_object_mut().unwrap().remove("jti").unwrap().as_str().unwrap().len() == 36);
            let (iat, exp) = (1_800_000_000, 1_800_000_300);
            let expected = json!({
                "iss": "https://idp.example", "sub": "spiffe://td/ns/shop/sa/web", "aud": written, "iat": iat, "exp": exp,
            });
            assert_eq!(claims, expected);
        }
    }

    fn public(jwk: &str, kid: &str) -> Value {
        let mut jwk: Value = serde_json::from_str(jwk).unwrap();
        jwk.as_object_mut().unwrap().remove("d");
        jwk["kid"] = json!(kid);
        jwk
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_good_renewed_ahead_of_their_end_and_the_same_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, RFC7515).unwrap();
        let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
        let interval = Duration::from_millis(500);
        let source = LocalKey::open(config(&path), interval, clock.clone(), Rng::seeded(3));
        let set = keys(&[public(RFC7515, "named"), public(RFC8037, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")]);
        let verifier = TokenVerifier::default().with(issuer("https://idp.example"), set);
        let first = source.token().unwrap();
        let verified = verifier.verify(&first, clock.now()).unwrap();
        assert_eq!(verified.subject.as_deref(), Some("spiffe://td/ns/shop/sa/web"));
        assert_eq!(verified.audiences, ["orders"]);
        let mut made = vec![first];
        for _ in 0..3600 {
            clock.advance(Duration::from_secs(1));
            tokio::time::sleep(2 * interval).await;
            let token = source.token().unwrap();
            let left = verifier.verify(&token, clock.now()).unwrap().expires.duration_since(clock.now()).unwrap();
            assert!(left >= Duration::from_secs(85), "{left:?}");
            if !Arc::ptr_eq(&token, made.last().unwrap()) {
                made.push(token);
            }
        }
        assert!((17..=26).contains(&made.len()), "{}", made.len());
        // Control: the first one has ended.
        assert_eq!(verifier.verify(&made[0], clock.now()).map(drop), Err(TokenError::Expired));
        // Another key signs from the next look on; a broken file changes nothing.
        for (contents, renewed) in [(RFC8037, true), ("{}", false), (RFC7515, true)] {
            let before = source.token().unwrap();
            std::fs::write(&path, contents).unwrap();
            tokio::time::sleep(4 * interval).await;
            let token = source.token().unwrap();
            assert_eq!(!Arc::ptr_eq(&before, &token), renewed);
            assert!(verifier.verify(&token, clock.now()).is_ok());
        }
    }
}
