//! Signatures are verified by `ring`, which TLS uses already: one cryptography in the process.
//!
//! jsonwebtoken's own choices are a second library written in C, or a dozen crates of which one (`rsa`) has an open
//! advisory. It lets others be plugged in; this is the plug. It cannot sign.

use std::sync::OnceLock;

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::signature::{self as verifying, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{error::Unspecified, hmac};
use signature::{Error, Verifier};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| Ok(Box::new(Verifying { algorithm: *algorithm, key: key.clone() })),
    key_utils: KeyUtils::new_unimplemented(),
};

/// Lets jsonwebtoken verify. Has to be called before it does.
pub(super) fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        // Somebody else's that came first verifies as well.
        let _ = PROVIDER.install_default();
    });
}

struct Verifying {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for Verifying {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Verifying {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), Error> {
        // A public key used as a shared secret would let anybody sign.
        if self.key.family() != self.algorithm.family() {
            return Err(Error::new());
        }
        let verified = match self.algorithm {
            Algorithm::HS256 => self.code(hmac::HMAC_SHA256, message, signed),
            Algorithm::HS384 => self.code(hmac::HMAC_SHA384, message, signed),
            Algorithm::HS512 => self.code(hmac::HMAC_SHA512, message, signed),
            Algorithm::RS256 => self.rsa(&verifying::RSA_PKCS1_2048_8192_SHA256, message, signed),
            Algorithm::RS384 => self.rsa(&verifying::RSA_PKCS1_2048_8192_SHA384, message, signed),
            Algorithm::RS512 => self.rsa(&verifying::RSA_PKCS1_2048_8192_SHA512, message, signed),
            Algorithm::PS256 => self.rsa(&verifying::RSA_PSS_2048_8192_SHA256, message, signed),
            Algorithm::PS384 => self.rsa(&verifying::RSA_PSS_2048_8192_SHA384, message, signed),
            Algorithm::PS512 => self.rsa(&verifying::RSA_PSS_2048_8192_SHA512, message, signed),
            Algorithm::ES256 => self.curve(&verifying::ECDSA_P256_SHA256_FIXED, message, signed),
            Algorithm::ES384 => self.curve(&verifying::ECDSA_P384_SHA384_FIXED, message, signed),
            Algorithm::EdDSA => self.curve(&verifying::ED25519, message, signed),
            // Others may come with a later version.
            _ => Err(Unspecified),
        };
        verified.map_err(|Unspecified| Error::new())
    }
}

impl Verifying {
    fn bytes(&self) -> Result<&[u8], Unspecified> {
        self.key.try_get_as_bytes().map_err(|_| Unspecified)
    }

    fn code(&self, algorithm: hmac::Algorithm, message: &[u8], signed: &[u8]) -> Result<(), Unspecified> {
        hmac::verify(&hmac::Key::new(algorithm, self.bytes()?), message, signed)
    }

    fn rsa(&self, parameters: &'static RsaParameters, message: &[u8], signed: &[u8]) -> Result<(), Unspecified> {
        match self.key.kind() {
            DecodingKeyKind::SecretOrDer(der) => UnparsedPublicKey::new(parameters, der).verify(message, signed),
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signed)
            }
        }
    }

    fn curve(
        &self,
        algorithm: &'static dyn verifying::VerificationAlgorithm,
        message: &[u8],
        signed: &[u8],
    ) -> Result<(), Unspecified> {
        UnparsedPublicKey::new(algorithm, self.bytes()?).verify(message, signed)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::crypto::verify;

    use super::*;

    #[test]
    fn a_public_key_is_no_secret_even_if_it_is_asked_for() {
        install();
        let point = [4; 65];
        let sealed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &point), b"message");
        let sealed = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, sealed.as_ref());
        let genuine = |key: DecodingKey| verify(&sealed, b"message", &key, Algorithm::HS256).unwrap();
        assert!(genuine(DecodingKey::from_secret(&point)));
        assert!(!genuine(DecodingKey::from_ec_der(&point)));
        assert!(!genuine(DecodingKey::from_rsa_der(&point)));
    }
}
