//! The certificate of the endpoint.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config as settings;
use crate::serve::reread::{Reread, Unusable};

/// A certificate and its key, read again when their files change. While the new ones cannot be used, or do not belong
/// together because only one of them is there yet, the old ones stay.
pub struct Tls(Reread<ServerConfig>);

impl Tls {
    /// Reads the files, if the settings name them.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn new(settings: &settings::Tls) -> Result<Option<Tls>, Unusable> {
        let lone = |path: &std::path::PathBuf, other: &str| Unusable {
            path: path.clone(),
            reason: format!("it is of no use without serve.tls.{other}"),
        };
        match (&settings.cert_file, &settings.key_file) {
            (None, None) => Ok(None),
            (Some(cert), None) => Err(lone(cert, "key_file")),
            (None, Some(key)) => Err(lone(key, "cert_file")),
            (Some(cert), Some(key)) => {
                let read = Reread::new(vec![cert.clone(), key.clone()], |read| config(&read[0], &read[1]))?;
                Ok(Some(Tls(read)))
            }
        }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.0.current().0.into()
    }
}

/// Which of the two is wrong, and why.
fn config(cert: &[u8], key: &[u8]) -> Result<ServerConfig, (usize, String)> {
    let chain: Vec<CertificateDer> = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<_, _>>()
        .map_err(|error| (0, told(error, "certificate")))?;
    if chain.is_empty() {
        return Err((0, told(pem::Error::NoItemsFound, "certificate")));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| (1, told(error, "private key")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| (0, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| (1, format!("it does not go with the certificate: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Without what stands in the file.
fn told(error: pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("there is no {wanted} in it"),
        pem::Error::MissingSectionEnd { .. } => "a section of it has no END line".into(),
        _ => "it is no PEM".into(),
    }
}
