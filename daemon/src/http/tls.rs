//! Whom to trust on an encrypted connection, and how to show who we are.
//!
//! One configuration is made when the first such connection is, and kept: certificate authorities as bare keys and
//! names, and the sessions that let the next connection skip most of the handshake.

use std::fs::{self, File};
use std::io::BufReader;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::HttpError;

/// Where certificate authorities are looked for, as the usual distributions place them.
const CA_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Servers whose sessions are remembered: the server itself, its storage, and one of each to spare.
const SESSIONS: usize = 4;

/// It cannot be earlier than this: the moment this program was built, where the build tells it (`SOURCE_DATE_EPOCH`) and
/// not earlier than its release. A device without a battery starts in 1970, when no certificate was valid yet.
const BUILT: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) if decimal(text) > RELEASED => decimal(text),
    Some(_) | None => RELEASED,
};

/// 2026-11-01.
const RELEASED: u64 = 1_793_491_200;

const fn decimal(text: &str) -> u64 {
    let digits = text.as_bytes();
    let (mut number, mut at) = (0_u64, 0);
    while at < digits.len() && digits[at].is_ascii_digit() && number < u64::MAX / 16 {
        number = number * 10 + (digits[at] - b'0') as u64;
        at += 1;
    }
    number
}

/// The settings of encrypted connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Files with certificate authorities to trust besides those of the system.
    pub extra_authorities: Vec<String>,
    /// No verification of the server's certificate.
    pub skip_verify: bool,
    /// Files with the certificate chain and the private key to show to a server that asks.
    pub client: Option<(String, String)>,
}

/// The configuration, made when it is first needed.
#[derive(Debug)]
pub struct Tls {
    options: TlsOptions,
    made: Mutex<Option<Arc<ClientConfig>>>,
}

impl Tls {
    /// Reads nothing yet.
    pub fn new(options: TlsOptions) -> Tls {
        Tls { options, made: Mutex::new(None) }
    }

    /// The configuration. What could not be read is read again at the next call.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn config(&self) -> Result<Arc<ClientConfig>, HttpError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = &*made {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(build(&self.options, Arc::new(AtLeastBuilt))?);
        *made = Some(Arc::clone(&config));
        Ok(config)
    }
}

/// Whether a certificate that is refused for this may be accepted later: only time changes by itself.
pub fn may_pass(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. }
    )
}

/// The time, but never one before this program existed.
#[derive(Debug)]
struct AtLeastBuilt;

impl TimeProvider for AtLeastBuilt {
    fn current_time(&self) -> Option<UnixTime> {
        Some(at_least_built(UnixTime::now()))
    }
}

fn at_least_built(now: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().max(BUILT)))
}

fn build(options: &TlsOptions, time: Arc<dyn TimeProvider>) -> Result<ClientConfig, HttpError> {
    let provider = Arc::new(ring::default_provider());
    let setup = |error: rustls::Error| HttpError::Tls { reason: error.to_string() };
    let builder = ClientConfig::builder_with_details(Arc::clone(&provider), time)
        .with_safe_default_protocol_versions()
        .map_err(setup)?;
    let builder = if options.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(DangerTrustAnybody { provider }))
    } else {
        builder.with_root_certificates(authorities(options)?)
    };
    let mut config = match &options.client {
        Some((certificate, key)) => {
            let chain = read_certificates(certificate)?;
            let wrong = |reason: String| HttpError::ClientKey { path: key.clone(), reason };
            if key.starts_with("pkcs11:") {
                return Err(wrong("PKCS#11 modules are not supported".into()));
            }
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(error.to_string()))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| wrong(error.to_string()))?
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

/// Everybody who may vouch for a server. Of a certificate only the name and the key are kept.
fn authorities(options: &TlsOptions) -> Result<RootCertStore, HttpError> {
    let mut store = RootCertStore::empty();
    if let Some(bundle) = CA_BUNDLES.iter().find(|path| fs::metadata(path).is_ok()) {
        // A bundle of a distribution may have a certificate that is too odd; the others still count.
        let added = for_each_certificate(bundle, |certificate| store.add(certificate).is_ok())?;
        log::debug!("{added} certificate authorities in {bundle}");
    }
    for path in &options.extra_authorities {
        let mut refused = None;
        let add = |certificate| match store.add(certificate) {
            Ok(()) => true,
            Err(error) => {
                refused = Some(error.to_string());
                false
            }
        };
        if for_each_certificate(path, add)? == 0 {
            let reason = refused.unwrap_or_else(|| "no certificate in it".into());
            return Err(HttpError::Authorities { path: path.clone(), reason });
        }
    }
    store.roots.shrink_to_fit();
    Ok(store)
}

fn read_certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    let mut certificates = Vec::new();
    for_each_certificate(path, |certificate| {
        certificates.push(certificate);
        true
    })?;
    if certificates.is_empty() {
        let reason = "no certificate in it".to_owned();
        return Err(HttpError::Authorities { path: path.to_owned(), reason });
    }
    Ok(certificates)
}

/// How many certificates of the file `path` `take` took. One at a time is in memory.
fn for_each_certificate(
    path: &str,
    mut take: impl FnMut(CertificateDer<'static>) -> bool,
) -> Result<usize, HttpError> {
    let wrong = |reason: String| HttpError::Authorities { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_reader_iter(BufReader::with_capacity(4096, file)) {
        if take(certificate.map_err(|error| wrong(error.to_string()))?) {
            count += 1;
        }
    }
    Ok(count)
}

/// `SkipVerify`: whoever answers is the server. That it has the key of the certificate it shows is still checked.
#[derive(Debug)]
struct DangerTrustAnybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for DangerTrustAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_checked_against_a_time_that_this_program_can_know() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        assert_eq!(at_least_built(at(0)).as_secs(), BUILT);
        assert_eq!(at_least_built(at(BUILT + 5)).as_secs(), BUILT + 5);
        assert_eq!(at_least_built(at(RELEASED - 1)).as_secs(), BUILT);
        assert_eq!((decimal("1793491200"), decimal("12x"), decimal("")), (1_793_491_200, 12, 0));
    }

    #[test]
    fn only_the_date_of_a_certificate_changes_by_itself() {
        assert!(may_pass(&CertificateError::Expired));
        assert!(may_pass(&CertificateError::NotValidYet));
        assert!(!may_pass(&CertificateError::UnknownIssuer));
        assert!(!may_pass(&CertificateError::NotValidForName));
    }
}
