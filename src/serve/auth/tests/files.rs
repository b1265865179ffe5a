//! The files that say who may ask, and their changes.

use super::*;
use crate::serve::reread::EVERY;
use signers::{ED25519_PEM, P256_PEM, P384_PEM, RSA_PEM};

#[tokio::test(start_paused = true)]
async fn other_keys_count_a_second_after_they_are_written() {
    let keys = Scratch::new(SECRET);
    let auth = Auth::new(&settings(&keys)).unwrap();
    let claims = json!({ "role": "web" });
    let (old, new) = (token("HS256", &claims), token("ES256", &claims));
    assert!(asked(&auth, &old).await.is_ok());
    keys.write(P256_PEM);
    assert!(asked(&auth, &old).await.is_ok(), "nobody looks within a second");
    tokio::time::advance(EVERY).await;
    assert_eq!(told(&auth, &old).await, NO_KEY, "though it was verified before");
    assert!(asked(&auth, &new).await.is_ok());
    keys.write("short");
    tokio::time::advance(EVERY).await;
    assert!(asked(&auth, &new).await.is_ok(), "what cannot be used changes nothing");
    keys.write(&format!("{RSA_PEM}\n# and\n{P256_PEM}{P384_PEM}{ED25519_PEM}"));
    tokio::time::advance(EVERY).await;
    for algorithm in ["RS256", "PS384", "ES256", "ES384", "EdDSA"] {
        assert!(asked(&auth, &token(algorithm, &claims)).await.is_ok(), "{algorithm}");
    }
}

#[tokio::test(start_paused = true)]
async fn api_keys_come_and_go() {
    let NewApiKey { key: first, line: of_first } = NewApiKey::of("one", "web").unwrap();
    let NewApiKey { key: second, line: of_second } = NewApiKey::of("two", "mobile").unwrap();
    let file = Scratch::new(&of_first);
    let settings = settings::Auth { api_keys_file: Some(file.path()), ..settings::Auth::default() };
    let auth = Auth::new(&settings).unwrap();
    let caller = asked(&auth, &first).await.unwrap();
    assert_eq!((caller.role.as_str(), caller.name.as_str()), ("web", "key:one"));
    let header = HeaderMap::from_iter([("apikey".parse().unwrap(), first.parse::<HeaderValue>().unwrap())]);
    assert_eq!(auth.caller(&header).await.unwrap().claims, r#"{"role":"web","api_key":"one"}"#);
    assert_eq!(told(&auth, &second).await, "PGRST301 the API key is not known");
    file.write(&of_second);
    tokio::time::advance(EVERY).await;
    assert_eq!(told(&auth, &first).await, "PGRST301 the API key is not known");
    assert_eq!(asked(&auth, &second).await.unwrap().role, "mobile");
    let without = Auth::new(&settings::Auth::default()).unwrap();
    assert_eq!(told(&without, &first).await, "PGRST301 the API key is not known");
}

#[test]
fn files_that_cannot_be_used_are_told_without_their_secrets() {
    let text =
        |path: &str| std::fs::read_to_string(format!("{}/src/serve/auth/fixtures/{path}", env!("CARGO_MANIFEST_DIR")));
    let private = text("p256.key").unwrap();
    let mut private_jwk = jwk("ES256");
    private_jwk["d"] = "c2VjcmV0".into();
    let with = |name: &str, value: Value| {
        let mut key = jwk("ES256");
        key[name] = value;
        json!({ "keys": [jwk("EdDSA"), key] }).to_string()
    };
    let wrong = [
        ("hunter2".into(), "line 1: the secret is shorter than 32 bytes"),
        (format!("{SECRET}\nhunter2"), "line 2: a secret has one line"),
        (format!("{P256_PEM}{private}"), "line 5: a private key"),
        (text("rsa1024.pub").unwrap(), "line 1: the key has less than 2,048 bits"),
        (text("p521.pub").unwrap(), "line 1: the curves are P-256 and P-384"),
        (text("rsa_older.pub").unwrap(), "line 1: an older form of RSA keys"),
        (P256_PEM.replace("MFkw", "MFkx"), "line 1: it is no public key"),
        (P256_PEM.replace("MFkw", "M Fk!"), "line 1: it is no PEM"),
        (format!("\n\n{}", P256_PEM.split("-----END").next().unwrap()), "line 3: the key has no END line"),
        ("-----BEGIN CERTIFICATE-----\n".into(), "line 1: a certificate"),
        ("{\n\"kty\": \"hunter2\",,}".into(), "line 2: it is no JSON"),
        (private_jwk.to_string(), "the JWK is a private key"),
        (json!({ "kty": "oct", "k": "aHVudGVyMg" }).to_string(), "the JWK is shorter than 32 bytes"),
        (json!({ "kty": "AKP", "pub": "hunter2" }).to_string(), "the JWK is of a type that is not supported"),
        (json!({ "keys": [] }).to_string(), "the JWK set has no keys"),
        (with("use", json!("enc")), "key 2 is not for verifying"),
        (with("key_ops", json!(["sign"])), "key 2 is not for verifying"),
        (with("alg", json!("RS256")), "key 2 has an `alg` that is not supported for its type"),
        (with("alg", json!("ES256K")), "key 2 has an `alg` that is not supported for its type"),
        (with("crv", json!("P-384")), "key 2 is of a curve that is not supported"),
        (with("crv", json!("secp256k1")), "key 2 is of a type that is not supported"),
        (with("x", json!("AAAA")), "key 2 is of a curve that is not supported, or not as long"),
        (with("x", json!("hunter2!")), "key 2 is of a type that is not supported, or is not base64url"),
        (with("kty", json!(3)), "key 2 is"),
    ];
    for (content, reason) in wrong {
        let keys = Scratch::new(&content);
        let told = Auth::new(&settings(&keys)).err().unwrap().to_string();
        assert!(told.contains(reason), "{reason}: {told}");
        assert!(told.contains(keys.path().to_str().unwrap()) && !told.contains("hunter2"), "{told}");
    }
    let bytes = Scratch::new("");
    std::fs::write(bytes.path(), [0xff; 40]).unwrap();
    assert!(Auth::new(&settings(&bytes)).err().unwrap().to_string().contains("a JWK of the type `oct`"));
}

#[test]
fn settings_that_cannot_be_used_are_told() {
    let told = |settings: settings::Auth| Auth::new(&settings).err().unwrap().to_string();
    let base = settings::Auth::default;
    assert!(told(settings::Auth { role_claim: ".a[".into(), ..base() }).starts_with("`serve.auth.role_claim` cannot"));
    assert!(told(settings::Auth { jwks_url: Some("file:///a".into()), ..base() }).contains("https://"));
    assert!(told(settings::Auth { jwks_url: Some("a b".into()), ..base() }).contains("serve.auth.jwks_url"));
    assert!(told(settings::Auth { anonymous_role: "a\0".into(), ..base() }).contains("NUL"));
    let absent = Some("/nowhere/keys".into());
    assert!(told(settings::Auth { api_keys_file: absent, ..base() }).contains("/nowhere/keys cannot be used: No such"));
    let file = Scratch::new("# names\none web sha256:00\n");
    assert!(
        told(settings::Auth { api_keys_file: Some(file.path()), ..base() }).contains("line 2: a line is: name role")
    );
}
