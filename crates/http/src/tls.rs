//! Whom to trust on an encrypted connection, and how to show who we are.
//!
//! Two things make a server the right one: its certificate leads to an authority that is trusted, or it is, byte for
//! byte, a certificate that was given by hand ([`Trust::is_given`]). Both have to be for this host and in their time, and
//! the server proves in the handshake that it has the key.
//!
//! One configuration is made when the first such connection is, and kept: certificate authorities as bare keys and
//! names, and the sessions that let the next connection skip most of the handshake.

use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::digest;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};

use super::HttpError;
use super::certificate::{Dates, Facts};
use client_core::clock::utc;

/// Where certificate authorities are looked for, as the usual distributions place them.
const CA_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Servers whose sessions are remembered: the server itself, its storage, and one of each to spare.
const SESSIONS: usize = 4;

/// It cannot be earlier than this: the moment this program was built, where the build tells it (`SOURCE_DATE_EPOCH`) and
/// not earlier than its release. A device without a battery starts in 1970, when no certificate was valid yet.
pub(crate) const BUILT: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) if decimal(text) > RELEASED => decimal(text),
    Some(_) | None => RELEASED,
};

/// Keys whose signatures can be checked.
const KEYS: &str = "RSA from 2048 bits, P-256, P-384 or Ed25519";

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

/// Why a server is not the right one, for a person.
#[derive(Debug)]
struct Refusal {
    text: String,
    /// Only time changes by itself.
    may_pass: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Refusal {}

/// What the failure of a handshake means: the words for a person, and whether another attempt may succeed. `None`: it
/// is not one of certificates and keys.
// Not our enum: what it learns to say is said in its words.
#[allow(clippy::wildcard_enum_match_arm)]
pub(crate) fn refusal(error: &io::Error) -> Option<(String, bool)> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            let known = other.downcast_ref::<Refusal>();
            Some(known.map_or_else(
                || (format!("the certificate of the server is not accepted: {other}"), false),
                |refusal| (refusal.text.clone(), refusal.may_pass),
            ))
        }
        rustls::Error::InvalidCertificate(error) => {
            Some((format!("the certificate of the server is not accepted: {error}"), false))
        }
        // What OpenSSL says when its only key is on another curve.
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure) => Some((
            format!("the server has nothing in common with this client: its key has to be {KEYS}"),
            true,
        )),
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            Some(("the server has neither TLS 1.2 nor TLS 1.3".to_owned(), true))
        }
        _ => None,
    }
}

/// Whether a handshake failed because of what the server showed.
pub(crate) fn is_about_the_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
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
    let provider = Arc::new(provider::default_provider());
    let setup = |error: rustls::Error| HttpError::Tls { reason: error.to_string() };
    let builder = ClientConfig::builder_with_details(Arc::clone(&provider), time)
        .with_safe_default_protocol_versions()
        .map_err(setup)?;
    let whom = match options.skip_verify {
        true => Whom::DangerAnybody,
        false => Whom::Trusted(Trust::read(options, Arc::clone(&provider))?),
    };
    let verifier = Arc::new(Verifier { whom, provider });
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match &options.client {
        Some((certificate, key)) => {
            let chain = read_certificates(certificate)?;
            let wrong = |reason: String| HttpError::ClientKey { path: key.clone(), reason };
            if key.starts_with("pkcs11:") {
                return Err(wrong("PKCS#11 modules are not supported".into()));
            }
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(pem_problem(&error)))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| wrong(error.to_string()))?
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

/// Who is trusted.
#[derive(Debug)]
struct Trust {
    /// Everybody who may vouch for a server. Of a certificate only the name and the key are kept.
    authorities: RootCertStore,
    /// Digests of the certificates that were given by hand, each of which is trusted as what it is.
    given: Vec<[u8; 32]>,
    /// The system has authorities of its own.
    system: bool,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    fn read(options: &TlsOptions, provider: Arc<CryptoProvider>) -> Result<Trust, HttpError> {
        let mut trust =
            Trust { authorities: RootCertStore::empty(), given: Vec::new(), system: false, provider };
        if let Some(bundle) = CA_BUNDLES.iter().find(|path| fs::metadata(path).is_ok()) {
            // A bundle of a distribution may have a certificate that is too odd; the others still count.
            let added =
                for_each_certificate(bundle, |certificate| trust.authorities.add(certificate).is_ok())?;
            log::debug!("{added} certificate authorities in {bundle}");
            trust.system = added > 0;
        }
        for path in &options.extra_authorities {
            let mut refused = None;
            let add = |certificate: CertificateDer<'static>| match Facts::of(&certificate) {
                Some(facts) => {
                    trust.given.push(digest_of(&certificate));
                    // One that says that it vouches for nobody is trusted as itself alone.
                    if facts.authority != Some(false) {
                        if let Err(error) = trust.authorities.add(certificate) {
                            log::debug!("{path}: no authority: {error}");
                        }
                    }
                    true
                }
                None => {
                    refused = Some("what is between BEGIN and END is not a certificate");
                    false
                }
            };
            if for_each_certificate(path, add)? == 0 {
                let reason = refused.map_or_else(|| no_certificate(path), str::to_owned);
                return Err(HttpError::Authorities { path: path.clone(), reason });
            }
        }
        trust.authorities.roots.shrink_to_fit();
        Ok(trust)
    }

    /// Whether an authority vouches for the certificate.
    fn is_vouched_for(
        &self,
        certificate: &ParsedCertificate<'_>,
        others: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(certificate, &self.authorities, others, now, algorithms)?;
        verify_server_name(certificate, host)
    }

    /// Whether this very certificate was given by hand.
    fn is_given(&self, certificate: &CertificateDer<'_>) -> bool {
        self.given.contains(&digest_of(certificate))
    }

    /// Whether a certificate that was given by hand is for `host`, and in its time. Its key cannot be another one, so the
    /// name may be written as OpenSSL takes it.
    fn may_be_used(
        certificate: &ParsedCertificate<'_>,
        facts: &Facts,
        host: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        // A clock before the build of this program is wrong for certain, and says nothing about a beginning.
        if now.as_secs() < facts.not_before && UnixTime::now().as_secs() >= BUILT {
            let not_before = at(facts.not_before);
            return Err(CertificateError::NotValidYetContext { time: now, not_before });
        }
        if now.as_secs() > facts.not_after {
            return Err(CertificateError::ExpiredContext { time: now, not_after: at(facts.not_after) });
        }
        match verify_server_name(certificate, host) {
            Err(_) if !facts.names_loosely(&host.to_str()) => Err(CertificateError::NotValidForName),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Whether `certificate` shows the server that was asked for; if not, why, for a person.
    // Not our enum: what is not about certificates stays as it is.
    #[allow(clippy::wildcard_enum_match_arm)]
    fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (facts, is_given) = (Facts::of(certificate), self.is_given(certificate));
        let judged = match (ParsedCertificate::try_from(certificate), &facts) {
            (Ok(parsed), Some(facts)) if is_given => {
                Trust::may_be_used(&parsed, facts, host, now).map_err(rustls::Error::from)
            }
            (Ok(parsed), _) => self.is_vouched_for(&parsed, others, host, now),
            (Err(error), _) => Err(error),
        };
        judged.map_err(|error| match error {
            rustls::Error::InvalidCertificate(error) => {
                let refusal = self.explain(&error, facts.as_ref(), &host.to_str(), is_given);
                CertificateError::Other(OtherError(Arc::new(refusal))).into()
            }
            error => error,
        })
    }

    // Not our enum: what it learns to say is said in its words.
    #[allow(clippy::wildcard_enum_match_arm)]
    fn explain(
        &self,
        error: &CertificateError,
        facts: Option<&Facts>,
        host: &str,
        is_given: bool,
    ) -> Refusal {
        const GIVE: &str = "set ServerCertificate to a file with this very certificate";
        let refusal = |may_pass, text: String| Refusal { text, may_pass };
        let never = |text: String| refusal(false, text);
        let Some(facts) = facts else {
            return never(format!("what {host} shows is not a certificate: {error}"));
        };
        match error {
            CertificateError::ExpiredContext { time, not_after } => refusal(
                true,
                format!(
                    "the certificate of {host} was good until {}, and it is {} here: it has to be renewed",
                    utc(not_after.as_secs()),
                    utc(time.as_secs())
                ),
            ),
            CertificateError::NotValidYetContext { not_before, .. } => refusal(
                true,
                format!(
                    "the certificate of {host} is good from {} on, and the clock of this device says {}: set the clock",
                    utc(not_before.as_secs()),
                    utc(UnixTime::now().as_secs())
                ),
            ),
            _ if facts.version < 3 => never(format!(
                "the certificate of {host} is of X.509 version {}, which has no place for the names of a server: \
                 make one with a subjectAltName (`openssl req -x509 -addext subjectAltName=...`)",
                facts.version
            )),
            _ if facts.is_p521 => {
                never(format!("the certificate of {host} has a key on the curve P-521: it has to be {KEYS}"))
            }
            CertificateError::UnknownIssuer if !self.system && self.authorities.is_empty() => never(format!(
                "nobody vouches for the certificate of {host}: there are no certificate authorities on this device \
                 (no {}); install them (ca-certificates), or {GIVE}",
                CA_BUNDLES.join(", ")
            )),
            CertificateError::UnknownIssuer => never(format!(
                "the certificate of {host} is signed by nobody whom this device trusts; set ServerCertificate to the \
                 certificate of who signed it, or {GIVE}"
            )),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                never(if !is_given && !facts.has_alternative_names() {
                    format!(
                        "the certificate of {host} has no subjectAltName, and the common name does not count where \
                         somebody else vouches for it: make one with subjectAltName, or {GIVE}"
                    )
                } else if facts.has_address_as_name() && facts.names_loosely(host) {
                    format!(
                        "the certificate of {host} has the address as the name of a host: make one with \
                         subjectAltName=IP:{host}, or {GIVE}"
                    )
                } else {
                    format!("the certificate is for {}, not for {host}", facts.shown_names())
                })
            }
            _ if facts.authority == Some(true) => never(format!(
                "the certificate of {host} is one of an authority (CA:TRUE), and no other authority may vouch for it \
                 as a server: make one with basicConstraints=CA:FALSE, or {GIVE}"
            )),
            error => never(format!("the certificate of {host} is not accepted: {error}")),
        }
    }
}

/// Who may be a server.
#[derive(Debug)]
enum Whom {
    Trusted(Trust),
    /// `SkipVerify`: whoever answers. That it has the key of the certificate it shows is still checked.
    DangerAnybody,
}

#[derive(Debug)]
struct Verifier {
    whom: Whom,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.whom {
            Whom::Trusted(trust) => trust.judge(certificate, others, host, now)?,
            Whom::DangerAnybody => {}
        }
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

fn digest_of(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    bytes
}

fn read_certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    let mut certificates = Vec::new();
    for_each_certificate(path, |certificate| {
        certificates.push(certificate);
        true
    })?;
    if certificates.is_empty() {
        let reason = no_certificate(path);
        return Err(HttpError::Authorities { path: path.to_owned(), reason });
    }
    Ok(certificates)
}

/// When the certificates in the file `path` are good.
///
/// # Errors
/// When it cannot be read, or there is none in it.
pub(crate) fn dates_in(path: &str) -> Result<Vec<Dates>, HttpError> {
    let certificates = read_certificates(path)?;
    Ok(certificates.iter().filter_map(|certificate| Dates::of(certificate)).collect())
}

/// Why there may be no certificate in a file.
fn no_certificate(path: &str) -> String {
    let mut first = [0];
    let is_der = File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut first)).is_ok();
    match is_der && first == [0x30] {
        true => "it is in DER; `openssl x509 -inform der -in OLD -out NEW` makes PEM of it".to_owned(),
        false => "there is no certificate in it (PEM, `-----BEGIN CERTIFICATE-----`)".to_owned(),
    }
}

/// What is wrong with a file in PEM. The library shows lines as lists of numbers.
// Not our enum: what it learns to say is said in its words.
#[allow(clippy::wildcard_enum_match_arm)]
fn pem_problem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } | pem::Error::IllegalSectionStart { .. } => {
            "`-----BEGIN ...-----` and `-----END ...-----` have to be lines of their own: it was cut short, or its line \
             ends were lost"
                .into()
        }
        pem::Error::NoItemsFound => "nothing of the kind is in it".into(),
        pem::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
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
        if take(certificate.map_err(|error| wrong(pem_problem(&error)))?) {
            count += 1;
        }
    }
    Ok(count)
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
    fn facts(name: &str) -> (CertificateDer<'static>, Facts) {
        let der = CertificateDer::from_pem_file(crate::test_support::tls_file(name)).unwrap();
        let facts = Facts::of(&der).unwrap();
        (der, facts)
    }

    fn trusting_nobody() -> Trust {
        let provider = Arc::new(provider::default_provider());
        Trust { authorities: RootCertStore::empty(), given: Vec::new(), system: false, provider }
    }

    #[test]
    fn what_cannot_be_taken_at_all_says_why_and_what_to_do() {
        let check = |name: &str, given: bool, words: &[&str]| {
            let (der, _) = facts(name);
            let mut trust = trusting_nobody();
            if given {
                trust.given.push(digest_of(&der));
            }
            let host = ServerName::try_from("localhost").unwrap();
            let now = at_least_built(UnixTime::now());
            let error = trust.judge(&der, &[], &host, now).unwrap_err();
            let (text, may_pass) = refusal(&io::Error::other(error)).unwrap();
            assert!(!may_pass && words.iter().all(|word| text.contains(word)), "{text}");
        };
        check("own-v1.pem", true, &["X.509 version 1", "-addext subjectAltName"]);
        check("own-p521.pem", false, &["P-521", "P-384"]);
        check("server.pem", false, &["no certificate authorities on this device", "ca-certificates.crt"]);
        check("own.pem", false, &["CA:TRUE", "ServerCertificate"]);
    }

    #[test]
    fn only_a_clock_that_is_wrong_for_certain_is_not_asked_about_the_beginning() {
        let (der, mut facts) = facts("own.pem");
        let parsed = ParsedCertificate::try_from(&der).unwrap();
        let host = ServerName::try_from("localhost").unwrap();
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let check = |facts: &Facts, now| Trust::may_be_used(&parsed, facts, &host, at(now)).is_ok();
        assert!(check(&facts, facts.not_before) && check(&facts, facts.not_after));
        assert!(!check(&facts, facts.not_after + 1));
        // The clock of the machine that runs this is right.
        assert!(!check(&facts, facts.not_before - 1));
        facts.not_after = 0;
        assert!(!check(&facts, BUILT));
    }
}
