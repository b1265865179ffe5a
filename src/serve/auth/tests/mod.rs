//! Whole requests, and what comes of them.

mod addresses;
mod files;
mod signers;

use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::*;
use crate::config as settings;
use signers::{ALGORITHMS, SECRET, jwk, sealed, token, token_of};

/// A file of the test's own.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new(content: &str) -> Scratch {
        let scratch = Scratch(tempfile::tempdir().unwrap());
        scratch.write(content);
        scratch
    }

    fn write(&self, content: &str) {
        std::fs::write(self.path(), content).unwrap();
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("file")
    }
}

fn settings(keys: &Scratch) -> settings::Auth {
    settings::Auth { jwt_keys_file: Some(keys.path()), ..settings::Auth::default() }
}

/// What verifies by this file.
fn auth(keys: &str) -> Auth {
    Auth::new(&settings(&Scratch::new(keys))).unwrap()
}

fn bearer(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
}

async fn asked(auth: &Auth, token: &str) -> Result<Arc<Caller>, Refused> {
    auth.caller(&bearer(token)).await
}

/// The code and message of a refusal.
async fn told(auth: &Auth, token: &str) -> String {
    let refused = asked(auth, token).await.unwrap_err();
    format!("{} {}", refused.code, refused.message)
}

const NO_KEY: &str = "PGRST301 No suitable key or wrong key type";
const FORGED: &str = "PGRST301 JWT cryptographic operation failed";
const NO_ROLE: &str = "The JWT role claim must be a string, neither empty nor `none`, and without NUL";

#[tokio::test]
async fn every_algorithm_lets_the_genuine_in_and_nobody_else() {
    let claims = json!({ "role": "web", "sub": "ann" });
    for (algorithm, file) in ALGORITHMS {
        let auth = auth(file);
        let token = token(algorithm, &claims);
        let caller = asked(&auth, &token).await.unwrap();
        assert_eq!((caller.role.as_str(), caller.name.as_str()), ("web", "jwt:ann"), "{algorithm}");
        assert_eq!(serde_json::from_str::<Value>(&caller.claims).unwrap(), claims);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let other = signers::token(algorithm, &json!({ "role": "admin" }));
        let forged = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
        assert_eq!(told(&auth, &forged).await, FORGED, "{algorithm}: other claims");
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[7] ^= 1;
        assert_eq!(told(&auth, &format!("{message}.{}", signers::coded(&bytes))).await, FORGED, "{algorithm}: one bit");
        assert_eq!(told(&auth, &format!("{message}.")).await, FORGED, "{algorithm}: no signature");
        assert_eq!(told(&auth, &format!("{message}.{}", signers::coded([0; 64]))).await, FORGED, "{algorithm}: zeros");
    }
}

#[tokio::test]
async fn every_algorithm_has_a_jwk() {
    let claims = json!({ "role": "web" });
    for (algorithm, _) in ALGORITHMS {
        let one = auth(&jwk(algorithm).to_string());
        assert!(asked(&one, &token(algorithm, &claims)).await.is_ok(), "{algorithm}");
    }
    let mixed: Vec<Value> = ["HS256", "PS512", "ES256", "ES384", "EdDSA"].map(jwk).to_vec();
    let set = auth(&json!({ "keys": mixed }).to_string());
    for algorithm in ["HS256", "HS512", "PS512", "ES256", "ES384", "EdDSA"] {
        assert!(asked(&set, &token(algorithm, &claims)).await.is_ok(), "{algorithm}");
    }
    assert_eq!(told(&set, &token("RS256", &claims)).await, NO_KEY, "the RSA key says that it is for PS512");
}

/// The examples of RFC 7515, appendices A.1 and A.3: made and signed by somebody else.
#[tokio::test]
async fn examples_of_the_standard_are_genuine() {
    const CLAIMS: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let secret = json!({
        "kty": "oct",
        "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
    });
    let curve = json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
    });
    let sealed =
        format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{CLAIMS}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    let signed = format!(
        "eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    );
    for (key, token) in [(secret, sealed), (curve, signed)] {
        let keys = Scratch::new(&key.to_string());
        let settings = settings::Auth { issuer: "joe".into(), default_role: "web".into(), ..settings(&keys) };
        let mut auth = Auth::new(&settings).unwrap();
        auth.now = Box::new(|| 1_300_819_380);
        let caller = asked(&auth, &token).await.unwrap();
        let claims = r#"{"iss":"joe","exp":1300819380,"http://example.com/is_root":true,"role":"web"}"#;
        assert_eq!((caller.claims.as_str(), caller.name.as_str()), (claims, "role:web"));
        auth.now = Box::new(|| 1_300_819_411);
        assert_eq!(told(&auth, &token).await, "PGRST303 JWT expired", "though it was verified before");
    }
}

#[tokio::test]
async fn a_key_is_for_its_own_algorithms_only() {
    let claims = json!({ "role": "admin" });
    // A public key is known to everybody; as a shared secret it would let everybody sign.
    for (algorithm, file) in ALGORITHMS.iter().filter(|(algorithm, _)| !algorithm.starts_with("HS")) {
        let auth = auth(file);
        let message = token_of("HS256", &json!({ "alg": "HS256" }), &claims);
        let (message, _) = message.rsplit_once('.').unwrap();
        let forged = format!("{message}.{}", signers::coded(sealed("HS256", file.as_bytes(), message.as_bytes())));
        assert_eq!(told(&auth, &forged).await, NO_KEY, "{algorithm}");
    }
    for (file, other) in [(signers::P256_PEM, "ES384"), (signers::P384_PEM, "ES256"), (SECRET, "RS256")] {
        assert_eq!(told(&auth(file), &token(other, &claims)).await, NO_KEY, "{other}");
    }
    // Signed by ES256, said to be ES384.
    let lying = token_of("ES256", &json!({ "alg": "ES384" }), &claims);
    assert_eq!(told(&auth(signers::P384_PEM), &lying).await, FORGED);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_as_postgrest_does() {
    let auth = auth(SECRET);
    let claims = json!({ "role": "web" });
    let header = |header: Value| token_of("HS256", &header, &claims);
    let told = |token: String| {
        let auth = &auth;
        async move { told(auth, &token).await }
    };
    let unsupported = "PGRST301 Wrong or unsupported encoding algorithm";
    for algorithm in ["none", "None", "HS1", "ES512", "", "hs256"] {
        assert_eq!(told(header(json!({ "alg": algorithm }))).await, unsupported, "{algorithm}");
    }
    let unsigned = header(json!({ "alg": "none" }));
    assert_eq!(told(format!("{}.", unsigned.rsplit_once('.').unwrap().0)).await, unsupported);
    assert_eq!(told(String::new()).await, "PGRST301 Empty JWT is sent in Authorization header");
    assert_eq!(told("a".into()).await, "PGRST301 Expected 3 parts in JWT; got 1");
    assert_eq!(told("a.b.c.d.e".into()).await, "PGRST301 Expected 3 parts in JWT; got 5");
    assert_eq!(told("a.b.c".into()).await, "PGRST301 JWT couldn't be decoded");
    assert_eq!(told(header(json!({}))).await, "PGRST301 JWT couldn't be decoded");
    for crit in [json!(["exp"]), json!(["b64"]), json!([])] {
        let told = told(header(json!({ "alg": "HS256", "crit": crit, "b64": false }))).await;
        assert_eq!(told, "PGRST301 the JWT has a `crit` header, and none is understood", "{crit}");
    }
    let packed = header(json!({ "alg": "HS256", "zip": "DEF" }));
    assert_eq!(told(packed).await, "PGRST301 Unsupported token type");
    let long = token("HS256", &json!({ "role": "web", "more": "x".repeat(8_192) }));
    assert_eq!(told(long).await, "PGRST301 the JWT is longer than 8192 bytes");
    for claims in [json!(["role"]), json!("web"), json!(null)] {
        assert_eq!(told(token("HS256", &claims)).await, "PGRST303 Parsing claims failed", "{claims}");
    }
}

#[tokio::test]
async fn claims_have_to_fit() {
    let keys = Scratch::new(SECRET);
    let settings = settings::Auth { audience: "views".into(), issuer: "us".into(), ..settings(&keys) };
    let mut auth = Auth::new(&settings).unwrap();
    auth.now = Box::new(|| 1_000);
    let good = json!({ "role": "web", "aud": "views", "iss": "us", "exp": 1_001, "nbf": 999, "iat": 999 });
    assert!(asked(&auth, &token("HS256", &good)).await.is_ok());
    let wrong = [
        ("exp", json!(969), "JWT expired"),
        ("exp", json!("1001"), "The JWT 'exp' claim must be a number"),
        ("nbf", json!(1_031), "JWT not yet valid"),
        ("iat", json!(1_031), "JWT issued at future"),
        ("aud", json!("others"), "JWT not in audience"),
        ("aud", json!({}), "The JWT 'aud' claim must be a string or an array of strings"),
        ("iss", json!("them"), "JWT not from the expected issuer"),
        ("role", json!(7), NO_ROLE),
        ("role", json!(""), NO_ROLE),
        ("role", json!("a\0b"), NO_ROLE),
        ("role", json!("none"), NO_ROLE),
    ];
    for (claim, value, message) in wrong {
        let mut claims = good.clone();
        claims[claim] = value;
        assert_eq!(told(&auth, &token("HS256", &claims)).await, format!("PGRST303 {message}"));
    }
}

#[tokio::test]
async fn the_role_is_where_the_path_leads() {
    let keys = Scratch::new(SECRET);
    let with = |role_claim: &str, default_role: &str| {
        let (role_claim, default_role) = (role_claim.to_string(), default_role.to_string());
        Auth::new(&settings::Auth { role_claim, default_role, ..settings(&keys) }).unwrap()
    };
    let token = token("HS256", &json!({ "role": "outer", "app_metadata": { "roles": ["o\"dd; --", "b"] } }));
    let caller = asked(&with(".app_metadata.roles[0]", ""), &token).await.unwrap();
    assert_eq!(caller.role, "o\"dd; --");
    assert_eq!(caller.claims, r#"{"role":"o\"dd; --","app_metadata":{"roles":["o\"dd; --","b"]}}"#);
    assert_eq!(asked(&with(".other", "least"), &token).await.unwrap().role, "least");
    let refused = asked(&with(".other", ""), &token).await.unwrap_err();
    assert_eq!((refused.code, refused.message.as_ref()), ("PGRST302", "Anonymous access is disabled"));
    assert!(refused.hint.unwrap().contains("role_claim"));
}

#[tokio::test]
async fn names_for_the_log_have_one_line_and_an_end() {
    let auth = auth(SECRET);
    let subject = format!("a\nb\u{1b}[31m{}", "x".repeat(1_000));
    let caller = asked(&auth, &token("HS256", &json!({ "role": "web", "sub": subject }))).await.unwrap();
    assert!(caller.name.starts_with("jwt:a\u{fffd}b\u{fffd}[31mxxx") && caller.name.chars().count() == 255);
}

#[tokio::test]
async fn requests_without_a_token_are_anonymous_or_refused() {
    let keys = Scratch::new(SECRET);
    let open = Auth::new(&settings::Auth { anonymous_role: "anon".into(), ..settings(&keys) }).unwrap();
    let closed = Auth::new(&settings(&keys)).unwrap();
    let basic = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Basic YTpi"))]);
    for headers in [HeaderMap::new(), basic] {
        let caller = open.caller(&headers).await.unwrap();
        assert_eq!((caller.role.as_str(), caller.name.as_str()), ("anon", "anonymous"));
        assert_eq!(caller.claims, r#"{"role":"anon"}"#);
        let refused = closed.caller(&headers).await.unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code), (401, "PGRST302"));
        assert_eq!(refused.challenge().unwrap(), "Bearer");
    }
    let refused = asked(&open, "a.b").await.unwrap_err();
    let challenge = "Bearer error=\"invalid_token\", error_description=\"Expected 3 parts in JWT; got 2\"";
    assert_eq!(refused.challenge().unwrap(), challenge);
    assert_eq!(refused.into_response().headers()[header::WWW_AUTHENTICATE], challenge);
    let keyless = Auth::new(&settings::Auth { anonymous_role: "anon".into(), ..settings::Auth::default() }).unwrap();
    let refused = asked(&keyless, "a.b.c").await.unwrap_err();
    assert_eq!((refused.status.as_u16(), refused.code, refused.challenge()), (500, "PGRST300", None));
}

#[tokio::test]
async fn clients_of_supabase_send_two_headers() {
    let auth = auth(SECRET);
    let (anon, user) = (token("HS256", &json!({ "role": "anon" })), token("HS256", &json!({ "role": "user" })));
    let headers = |pairs: &[(&'static str, &str)]| {
        let pair = |(name, value): &(&'static str, &str)| {
            (name.parse::<axum::http::HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        };
        pairs.iter().map(pair).collect::<HeaderMap>()
    };
    let role =
        async |pairs: &[(&'static str, &str)]| Ok::<_, Refused>(auth.caller(&headers(pairs)).await?.role.clone());
    assert_eq!(role(&[("apikey", &anon)]).await.unwrap(), "anon");
    assert_eq!(role(&[("apikey", &anon), ("authorization", &format!("bearer  {user} "))]).await.unwrap(), "user");
    assert_eq!(role(&[("apikey", "x"), ("authorization", &format!("BEARER {user}"))]).await.unwrap(), "user");
    assert!(role(&[("apikey", &anon), ("authorization", "Bearer a.b.c")]).await.is_err());
    assert_eq!(role(&[("apikey", ""), ("authorization", "")]).await.unwrap_err().code, "PGRST302");
    assert_eq!(role(&[("authorization", "Bearer \u{e9}")]).await.unwrap_err().code, "PGRST301");
}
