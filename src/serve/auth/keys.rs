//! The keys that tokens are verified by, from a file or a JWK set.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use spki::der::Decode;
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};

/// What can be guessed is no secret; PostgREST asks for as many.
const SHORTEST_SECRET: usize = 32;

/// 2,048 bits, which `ring` asks for.
const SHORTEST_MODULUS: usize = 256;

const SECRET: &[Algorithm] = &[HS256, HS384, HS512];
const RSA: &[Algorithm] = &[RS256, RS384, RS512, PS256, PS384, PS512];

const RSA_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const CURVE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// One key, with the algorithms that it is for. No token can have it used by another one.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) decoding: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl Key {
    fn new(decoding: DecodingKey, algorithms: &[Algorithm]) -> Key {
        Key { id: None, decoding, algorithms: algorithms.to_vec() }
    }

    /// Whether tokens of this algorithm can be of this key.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

/// Reads a file of keys: a secret, PEM public keys, a JWK or a JWK set.
///
/// # Errors
/// What is wrong, and in which line or key. Never what stands there.
pub(super) fn from_file(content: &[u8]) -> Result<Vec<Key>, String> {
    let text = std::str::from_utf8(content).map_err(|_| {
        "it is no text; a secret of arbitrary bytes can be given as a JWK of the type `oct`".to_string()
    })?;
    let trimmed = text.trim();
    if trimmed.starts_with('{') {
        return from_json(trimmed);
    }
    if text.contains("-----BEGIN ") {
        return from_pem(text);
    }
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.contains('\n') {
        return Err("line 2: a secret has one line, and PEM and JWK begin differently".into());
    }
    if secret.len() < SHORTEST_SECRET {
        return Err(format!(
            "line 1: the secret is shorter than {SHORTEST_SECRET} bytes; openssl rand -base64 48 makes one"
        ));
    }
    Ok(vec![Key::new(DecodingKey::from_secret(secret.as_bytes()), SECRET)])
}

/// The usable keys of a JWK set that was fetched, and why the others are not. What anybody can fetch is no secret, so
/// there are public keys only.
///
/// # Errors
/// When it is no JWK set.
pub(super) fn from_set(content: &[u8]) -> Result<(Vec<Key>, Vec<String>), String> {
    let set: Value = serde_json::from_slice(content).map_err(|_| "what it answers is no JSON".to_string())?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("what it answers has no array `keys`")?;
    let (mut usable, mut passed_over) = (Vec::new(), Vec::new());
    for (index, value) in keys.iter().enumerate() {
        match from_jwk(value) {
            Ok(key) if key.fits(HS256) || key.fits(HS384) || key.fits(HS512) => {
                passed_over.push(format!("key {} is a shared secret", index + 1));
            }
            Ok(key) => usable.push(key),
            Err(reason) => passed_over.push(format!("key {} {reason}", index + 1)),
        }
    }
    Ok((usable, passed_over))
}

fn from_json(text: &str) -> Result<Vec<Key>, String> {
    // What serde says shows what stands there.
    let value: Value = serde_json::from_str(text).map_err(|error| format!("line {}: it is no JSON", error.line()))?;
    let Some(keys) = value.get("keys") else {
        return from_jwk(&value).map(|key| vec![key]).map_err(|reason| format!("the JWK {reason}"));
    };
    let keys = keys.as_array().ok_or("`keys` is no array")?;
    if keys.is_empty() {
        return Err("the JWK set has no keys".into());
    }
    let numbered = keys.iter().enumerate();
    numbered.map(|(index, key)| from_jwk(key).map_err(|reason| format!("key {} {reason}", index + 1))).collect()
}

fn from_jwk(value: &Value) -> Result<Key, String> {
    if value.get("kty").and_then(Value::as_str) != Some("oct") && value.get("d").is_some() {
        return Err("is a private key; only its public half belongs here".into());
    }
    // Untagged variants are matched by reference: the keys' texts stay where they are.
    let jwk = <Jwk as serde::Deserialize>::deserialize(value).map_err(|_| "is no JWK")?;
    if jwk.common.public_key_use.as_ref().is_some_and(|kind| *kind != PublicKeyUse::Signature)
        || jwk.common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify))
    {
        return Err("is not for verifying".into());
    }
    let decoding =
        DecodingKey::from_jwk(&jwk).map_err(|_| "is of a type that is not supported, or is not base64url")?;
    let length = match decoding.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.iter().skip_while(|byte| **byte == 0).count(),
    };
    let algorithms = match (&jwk.algorithm, length) {
        (AlgorithmParameters::OctetKey(_), SHORTEST_SECRET..) => SECRET,
        (AlgorithmParameters::OctetKey(_), _) => return Err(format!("is shorter than {SHORTEST_SECRET} bytes")),
        (AlgorithmParameters::RSA(_), SHORTEST_MODULUS..) => RSA,
        (AlgorithmParameters::RSA(_), _) => return Err("has less than 2,048 bits".into()),
        (AlgorithmParameters::EllipticCurve(key), 65) if key.curve == EllipticCurve::P256 => &[ES256],
        (AlgorithmParameters::EllipticCurve(key), 97) if key.curve == EllipticCurve::P384 => &[ES384],
        (AlgorithmParameters::OctetKeyPair(key), 32) if key.curve == EllipticCurve::Ed25519 => &[EdDSA][..],
        _ => return Err("is of a curve that is not supported, or not as long as its curve's".into()),
    };
    let mut key = Key::new(decoding, algorithms);
    key.id = jwk.common.key_id;
    if let Some(only) = jwk.common.key_algorithm {
        key.algorithms.retain(|algorithm| Algorithm::try_from(only).is_ok_and(|only| only == *algorithm));
    }
    if key.algorithms.is_empty() { Err("has an `alg` that is not supported for its type".into()) } else { Ok(key) }
}

fn from_pem(text: &str) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(label) = line.trim().strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) {
            labelled(label).map_err(|reason| format!("line {number}: {reason}"))?;
            open = Some((number, String::new()));
        }
        let Some((begun, block)) = &mut open else { continue };
        block.push_str(line.trim());
        block.push('\n');
        if line.trim().starts_with("-----END ") {
            keys.push(from_block(block).map_err(|reason| format!("line {begun}: {reason}"))?);
            open = None;
        }
    }
    match open {
        Some((begun, _)) => Err(format!("line {begun}: the key has no END line")),
        None if keys.is_empty() => Err("line 1: there is no key in it".into()),
        None => Ok(keys),
    }
}

fn labelled(label: &str) -> Result<(), &'static str> {
    match label {
        "PUBLIC KEY" => Ok(()),
        "RSA PUBLIC KEY" => Err("an older form of RSA keys; openssl rsa -RSAPublicKey_in -pubout writes the newer one"),
        "CERTIFICATE" => Err("a certificate; openssl x509 -pubkey -noout writes its key"),
        _ if label.ends_with("PRIVATE KEY") => Err("a private key; only its public half belongs here"),
        _ => Err("not a public key"),
    }
}

fn from_block(block: &str) -> Result<Key, &'static str> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(block.as_bytes()).map_err(|_| "it is no PEM")?;
    let key = SubjectPublicKeyInfoRef::from_der(&der).map_err(|_| "it is no public key")?;
    let bytes = key.subject_public_key.as_bytes().ok_or("it is no public key")?;
    match (key.algorithm.oid, bytes.len()) {
        (RSA_ID, SHORTEST_MODULUS..) => Ok(Key::new(DecodingKey::from_rsa_der(bytes), RSA)),
        (RSA_ID, _) => Err("the key has less than 2,048 bits"),
        (CURVE_ID, 65) => Ok(Key::new(DecodingKey::from_ec_der(bytes), &[ES256])),
        (CURVE_ID, 97) => Ok(Key::new(DecodingKey::from_ec_der(bytes), &[ES384])),
        (CURVE_ID, _) => Err("the curves are P-256 and P-384"),
        (ED25519_ID, 32) => Ok(Key::new(DecodingKey::from_ed_der(bytes), &[EdDSA])),
        _ => Err("the types are RSA, EC and Ed25519"),
    }
}
