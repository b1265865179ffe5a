//! Who is asking: the Postgres role of a request, by its token, its API key, or neither.

mod api_keys;
mod claims;
mod crypto;
mod jwks;
mod keys;
mod refused;
mod verified;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use api_keys::NewApiKey;
pub use refused::Refused;

use crate::config as settings;
use crate::serve::reread::{Reread, Unusable};
use api_keys::ApiKeys;
use claims::{Claims, Path, Wanted};
use jwks::{Held, Jwks};
use keys::Key;
use verified::Verified;

/// Longer tokens are refused unread.
const LONGEST_TOKEN: usize = 8_192;

/// What those are called who say nothing of themselves.
const ANONYMOUS: &str = "anonymous";

/// Characters of a caller's name.
const LONGEST_NAME: usize = 255;

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The Postgres role: any text that is neither empty nor `none`, and has no NUL. It has to be quoted where it stands in SQL.
    pub role: String,
    /// The claims as JSON, for `request.jwt.claims`. Their `role` is the role above.
    pub claims: String,
    /// What rate limits and the log call the caller: `jwt:SUBJECT`, `role:ROLE`, `key:NAME` or `anonymous`.
    pub name: String,
}

impl Caller {
    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }
}

/// Settings that cannot be used, and where they are to be mended.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error(transparent)]
    File(#[from] Unusable),
    #[error("`{setting}` cannot be used: {reason}")]
    Setting { setting: &'static str, reason: String },
}

/// What tells who is asking.
pub struct Auth {
    anonymous: Option<Arc<Caller>>,
    default_role: Option<String>,
    role_claim: Path,
    wanted: Wanted,
    keys: Option<Reread<Vec<Key>>>,
    jwks: Option<Arc<Jwks>>,
    api_keys: Option<Reread<ApiKeys>>,
    verified: Verified,
    /// Seconds since 1970.
    now: Box<dyn Fn() -> i64 + Send + Sync>,
}

/// The keys of the file and of the address, and how often they have changed.
struct Known {
    file: Option<Arc<Vec<Key>>>,
    fetched: Option<Held>,
    changes: u64,
}

impl Auth {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// Which setting, or which line of which file, is wrong.
    pub fn new(settings: &settings::Auth) -> Result<Auth, AuthError> {
        crypto::install();
        let role = |setting, role: &str| match role {
            "" => Ok(None),
            role if check_role(role).is_none() => {
                Err(AuthError::Setting { setting, reason: "it is `none` or has a NUL".into() })
            }
            role => Ok(Some(role.to_string())),
        };
        let role_claim = Path::parse(&settings.role_claim)
            .map_err(|reason| AuthError::Setting { setting: "serve.auth.role_claim", reason })?;
        let anonymous = role("serve.auth.anonymous_role", &settings.anonymous_role)?.map(|role| {
            let claims = json!({ "role": role }).to_string();
            Arc::new(Caller { role, claims, name: ANONYMOUS.into() })
        });
        let refresh = Duration::from_secs(settings.jwks_refresh_s.max(jwks::PAUSE.as_secs()));
        let at_fault = |reason| (0, reason);
        Ok(Auth {
            anonymous,
            default_role: role("serve.auth.default_role", &settings.default_role)?,
            role_claim,
            wanted: Wanted {
                leeway_s: settings.leeway_s.into(),
                audience: settings.audience.clone(),
                issuer: settings.issuer.clone(),
            },
            keys: settings
                .jwt_keys_file
                .as_ref()
                .map(|file| Reread::new(vec![file.clone()], move |read| keys::from_file(&read[0]).map_err(at_fault)))
                .transpose()?,
            jwks: settings.jwks_url.as_deref().map(|url| Jwks::new(url, refresh)).transpose()?.map(Arc::new),
            api_keys: settings
                .api_keys_file
                .as_ref()
                .map(|file| Reread::new(vec![file.clone()], move |read| ApiKeys::parse(&read[0]).map_err(at_fault)))
                .transpose()?,
            verified: Verified::default(),
            now: Box::new(|| jiff::Timestamp::now().as_second()),
        })
    }

    /// Who sends these headers. `Authorization: Bearer` comes before `apikey`; either holds a token or an API key.
    ///
    /// # Errors
    /// Why the request is not to be answered.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Refused> {
        let Some(shown) = shown(headers) else {
            let nobody = || Refused::nobody("send a token or an API key: Authorization: Bearer TOKEN");
            return self.anonymous.clone().ok_or_else(nobody);
        };
        let shown = std::str::from_utf8(shown).map_err(|_| Refused::undecoded("JWT couldn't be decoded"))?;
        if shown.is_empty() {
            return Err(Refused::undecoded("Empty JWT is sent in Authorization header"));
        }
        if api_keys::has_form(shown) {
            let found = self.api_keys.as_ref().and_then(|keys| keys.current().0.caller(shown));
            return found.ok_or_else(|| Refused::undecoded("the API key is not known"));
        }
        self.bearer(shown).await
    }

    /// Who shows a token.
    async fn bearer(&self, token: &str) -> Result<Arc<Caller>, Refused> {
        if token.len() > LONGEST_TOKEN {
            return Err(Refused::undecoded(format!("the JWT is longer than {LONGEST_TOKEN} bytes")));
        }
        let mut known = self.known().await?;
        let now = (self.now)();
        let fingerprint = Sha256::digest(token).into();
        if let Some(caller) = self.verified.get(&fingerprint, known.changes, now) {
            return Ok(caller);
        }
        let header = header(token)?;
        if let (Some(jwks), Some(id)) = (&self.jwks, header.kid.as_deref())
            && !known.all().any(|key| key.id.as_deref() == Some(id))
        {
            jwks.fetch().await;
            known = self.known().await?;
        }
        let claims = known.verify(token, &header)?;
        let until = self.wanted.check(&claims, now)?;
        let caller = Arc::new(self.named(claims)?);
        self.verified.put(fingerprint, known.changes, caller.clone(), until, now);
        Ok(caller)
    }

    async fn known(&self) -> Result<Known, Refused> {
        if self.keys.is_none() && self.jwks.is_none() {
            return Err(Refused::no_keys());
        }
        let (file, of_file) = self.keys.as_ref().map(Reread::current).unzip();
        let fetched = match &self.jwks {
            Some(jwks) => Some(jwks.current().await),
            None => None,
        };
        // Both only ever grow, so their sum is another one whenever either is.
        let changes = of_file.unwrap_or_default() + fetched.as_ref().map_or(0, |held| held.changes);
        Ok(Known { file, fetched, changes })
    }

    /// The caller that genuine claims name.
    fn named(&self, mut claims: Claims) -> Result<Caller, Refused> {
        let role = match self.role_claim.find(&claims) {
            None | Some(Value::Null) => self
                .default_role
                .clone()
                .ok_or_else(|| Refused::nobody("the token has no role where serve.auth.role_claim looks for one"))?,
            Some(Value::String(role)) if check_role(role).is_some() => role.clone(),
            Some(_) => {
                return Err(Refused::claims(
                    "The JWT role claim must be a string, neither empty nor `none`, and without NUL",
                ));
            }
        };
        let name = match claims.get("sub").and_then(Value::as_str) {
            Some(subject) => format!("jwt:{subject}"),
            None => format!("role:{role}"),
        };
        // It stands in lines of the log.
        let name = name.chars().take(LONGEST_NAME).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        claims.insert("role".into(), role.as_str().into());
        Ok(Caller { role, claims: Value::Object(claims).to_string(), name })
    }
}

impl Known {
    fn all(&self) -> impl Iterator<Item = &Key> {
        let fetched = self.fetched.iter().flat_map(|held| held.keys.iter());
        self.file.iter().flat_map(|keys| keys.iter()).chain(fetched)
    }

    /// The claims of a token, if it is genuine. A key of the token's name is the only one that is tried; those without
    /// a name are if there is none.
    fn verify(&self, token: &str, header: &Header) -> Result<Claims, Refused> {
        let fitting = || self.all().filter(|key| key.fits(header.alg));
        let named = |key: &&Key| header.kid.is_some() && key.id == header.kid;
        let nameless = |key: &&Key| header.kid.is_none() || key.id.is_none();
        let mut tried: Vec<&Key> = fitting().filter(named).collect();
        if tried.is_empty() && !self.all().any(|key| named(&key)) {
            tried = fitting().filter(nameless).collect();
        }
        if tried.is_empty() {
            let unfetched = self.fetched.as_ref().is_some_and(|held| !held.known());
            return Err(if unfetched {
                Refused::not_yet()
            } else {
                Refused::undecoded("No suitable key or wrong key type")
            });
        }
        let mut validation = Validation::new(header.alg);
        // What the claims have to say is checked with PostgREST's words afterwards.
        validation.required_spec_claims = HashSet::new();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        for key in tried {
            match jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation).map_err(|error| error.into_kind()) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(ErrorKind::Json(_) | ErrorKind::Utf8(_)) => return Err(Refused::claims("Parsing claims failed")),
                Err(_) => {}
            }
        }
        Err(Refused::undecoded("JWT cryptographic operation failed"))
    }
}

/// What a request shows of itself.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).and_then(|value| {
        let (scheme, rest) = value.split_at(value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len()));
        scheme.eq_ignore_ascii_case(b"bearer").then(|| rest.trim_ascii())
    });
    bearer.or_else(|| headers.get("apikey").map(|value| value.as_bytes().trim_ascii()).filter(|key| !key.is_empty()))
}

/// The header of a token.
fn header(token: &str) -> Result<Header, Refused> {
    let parts = token.split('.').count();
    if parts != 3 {
        return Err(Refused::undecoded(format!("Expected 3 parts in JWT; got {parts}")));
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| match unknown_algorithm(token) {
        Some(true) => Refused::undecoded("Wrong or unsupported encoding algorithm"),
        _ => Refused::undecoded("JWT couldn't be decoded"),
    })?;
    match header {
        Header { crit: Some(_), .. } => Err(Refused::undecoded("the JWT has a `crit` header, and none is understood")),
        Header { enc: Some(_), .. } | Header { zip: Some(_), .. } => Err(Refused::undecoded("Unsupported token type")),
        header => Ok(header),
    }
}

/// Whether it is the algorithm that nobody knows, such as `none`.
fn unknown_algorithm(token: &str) -> Option<bool> {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    Some(header.get("alg")?.as_str()?.parse::<Algorithm>().is_err())
}

/// A role as it can be, or nothing. To Postgres `none` is no role: who sets it is the one who has logged in.
fn check_role(role: &str) -> Option<&str> {
    (!role.is_empty() && role != "none" && !role.contains('\0')).then_some(role)
}
