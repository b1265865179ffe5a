//! Those who sign the tokens of the tests. The keys are of nobody else.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair as RsaKeyPair, PublicKeyComponents};
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

pub const SECRET: &str = "a secret of more than thirty-two bytes";
pub const RSA_PEM: &str = include_str!("../fixtures/rsa.pub");
pub const P256_PEM: &str = include_str!("../fixtures/p256.pub");
pub const P384_PEM: &str = include_str!("../fixtures/p384.pub");
pub const ED25519_PEM: &str = include_str!("../fixtures/ed25519.pub");

/// Every algorithm, and the file that its tokens are verified by.
pub const ALGORITHMS: &[(&str, &str)] = &[
    ("HS256", SECRET),
    ("HS384", SECRET),
    ("HS512", SECRET),
    ("RS256", RSA_PEM),
    ("RS384", RSA_PEM),
    ("RS512", RSA_PEM),
    ("PS256", RSA_PEM),
    ("PS384", RSA_PEM),
    ("PS512", RSA_PEM),
    ("ES256", P256_PEM),
    ("ES384", P384_PEM),
    ("EdDSA", ED25519_PEM),
];

pub fn coded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn private(pem: &str) -> Vec<u8> {
    PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap().secret_pkcs8_der().to_vec()
}

fn rsa() -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(&private(include_str!("../fixtures/rsa.key"))).unwrap()
}

fn curve(algorithm: &str) -> EcdsaKeyPair {
    let (kind, pem) = match algorithm {
        "ES256" => (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, include_str!("../fixtures/p256.key")),
        _ => (&signature::ECDSA_P384_SHA384_FIXED_SIGNING, include_str!("../fixtures/p384.key")),
    };
    EcdsaKeyPair::from_pkcs8(kind, &private(pem), &SystemRandom::new()).unwrap()
}

fn ed25519() -> Ed25519KeyPair {
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&private(include_str!("../fixtures/ed25519.key"))).unwrap()
}

/// Signs with a shared secret.
pub fn sealed(algorithm: &str, secret: &[u8], message: &[u8]) -> Vec<u8> {
    let kind = match algorithm {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA512,
    };
    hmac::sign(&hmac::Key::new(kind, secret), message).as_ref().to_vec()
}

fn signed(algorithm: &str, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let encoding: &dyn signature::RsaEncoding = match algorithm {
        "RS256" => &signature::RSA_PKCS1_SHA256,
        "RS384" => &signature::RSA_PKCS1_SHA384,
        "RS512" => &signature::RSA_PKCS1_SHA512,
        "PS256" => &signature::RSA_PSS_SHA256,
        "PS384" => &signature::RSA_PSS_SHA384,
        "PS512" => &signature::RSA_PSS_SHA512,
        "ES256" | "ES384" => return curve(algorithm).sign(&random, message).unwrap().as_ref().to_vec(),
        "EdDSA" => return ed25519().sign(message).as_ref().to_vec(),
        _ => return sealed(algorithm, SECRET.as_bytes(), message),
    };
    let rsa = rsa();
    let mut signed = vec![0; rsa.public().modulus_len()];
    rsa.sign(encoding, &random, message, &mut signed).unwrap();
    signed
}

/// A token with this header, signed in the way of an algorithm.
pub fn token_of(algorithm: &str, header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", coded(header.to_string()), coded(claims.to_string()));
    let signed = signed(algorithm, message.as_bytes());
    format!("{message}.{}", coded(signed))
}

pub fn token(algorithm: &str, claims: &Value) -> String {
    token_of(algorithm, &json!({ "alg": algorithm, "typ": "JWT" }), claims)
}

pub fn named_token(algorithm: &str, kid: &str, claims: &Value) -> String {
    token_of(algorithm, &json!({ "alg": algorithm, "kid": kid }), claims)
}

/// The public key that an algorithm's tokens are verified by; the secret, if it is one.
pub fn jwk(algorithm: &str) -> Value {
    match algorithm {
        "ES256" | "ES384" => {
            let pair = curve(algorithm);
            let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
            let name = if algorithm == "ES256" { "P-256" } else { "P-384" };
            json!({ "kty": "EC", "crv": name, "x": coded(x), "y": coded(y), "use": "sig" })
        }
        "EdDSA" => json!({ "kty": "OKP", "crv": "Ed25519", "x": coded(ed25519().public_key()) }),
        _ if algorithm.starts_with("HS") => json!({ "kty": "oct", "k": coded(SECRET) }),
        _ => {
            let public = PublicKeyComponents::<Vec<u8>>::from(rsa().public());
            json!({ "kty": "RSA", "n": coded(public.n), "e": coded(public.e), "alg": algorithm })
        }
    }
}
