//! The certificate and the key of the server, read anew while it runs: on order, and when their files change.
//!
//! New files are used only when they are whole and belong together. Until then the old ones stay: whoever renews a certificate
//! writes two files, one after the other, and connections meanwhile must not fail.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use crate::metrics::Metrics;
use crate::model::time::Timestamp;
use crate::options::Options;
use crate::start::StartError;

/// A certificate that ends sooner is told of in the log each time that it is read.
const SOON_SECONDS: u64 = 14 * 24 * 3600;

/// Where they are, and what is used now.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: Files,
    current: RwLock<Arc<ServerConfig>>,
    /// How the files were when they were read last, for better or worse.
    seen: Mutex<Stamps>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// What changes with a file: its number, its size, and when it was written. `None` for one that is not there.
type Stamps = Vec<Option<(u64, u64, i64, i64)>>;

impl Certificates {
    /// Reads those that `options` name; `None` when there are none.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) fn open(options: &Options, metrics: Arc<Metrics>) -> Result<Option<Certificates>, StartError> {
        let Some((certificate, key)) = options.tls.clone() else {
            return match options.client_ca {
                None => Ok(None),
                Some(_) => Err(StartError::ClientCaWithoutTls),
            };
        };
        let files = Files { certificate, key, client_ca: options.client_ca.clone() };
        let stamps = files.stamps();
        let (config, ends) = files.read().map_err(|reason| StartError::Tls { reason })?;
        tell_end(&files.certificate, ends, &metrics);
        let current = RwLock::new(Arc::new(config));
        Ok(Some(Certificates { files, current, seen: Mutex::new(stamps), metrics }))
    }

    /// What a connection that begins now uses.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again. Whether they are used now.
    pub(crate) fn read_again(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_holding(&mut seen)
    }

    /// Reads the files again when they are others than before.
    pub(crate) fn read_if_changed(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen != self.files.stamps() {
            self.read_holding(&mut seen);
        }
    }

    fn read_holding(&self, seen: &mut Stamps) -> bool {
        // Before they are read: what changes meanwhile is read once more.
        *seen = self.files.stamps();
        match self.files.read() {
            Ok((config, ends)) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                self.metrics.certificates_read.add(1);
                log::info!("the certificate {} was read anew", self.files.certificate.display());
                tell_end(&self.files.certificate, ends, &self.metrics);
                true
            }
            Err(reason) => {
                self.metrics.certificates_refused.add(1);
                log::error!("the new certificate cannot be used, and the old one stays: {reason}");
                false
            }
        }
    }
}

fn tell_end(path: &Path, ends: Option<u64>, metrics: &Metrics) {
    let Some(ends) = ends else {
        metrics.certificate_ends.set(0);
        return log::warn!("when the certificate {} ends cannot be read", path.display());
    };
    metrics.certificate_ends.set(ends);
    let left = ends.saturating_sub(Timestamp::now().seconds());
    if left == 0 {
        log::error!("the certificate {} has ended", path.display());
    } else if left < SOON_SECONDS {
        log::warn!("the certificate {} ends in {} days", path.display(), left / 86_400);
    }
}

impl Files {
    fn stamps(&self) -> Stamps {
        let stamp = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
        };
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).map(stamp).collect()
    }

    /// What they say, and when the first certificate of the chain ends.
    fn read(&self) -> Result<(ServerConfig, Option<u64>), String> {
        let chain = certificates(&self.certificate)?;
        let ends = chain.iter().filter_map(|one| end_of(one)).min();
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| format!("the key in {}: {error}", self.key.display()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| wrong(&error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| wrong(&error))?)
            }
        };
        let config = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
        Ok((config, ends))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?.collect();
    let all = all.map_err(|error| wrong(&error))?;
    if all.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(all) }
}

/// When a certificate ends, in seconds since 1970: `notAfter` of RFC 5280, section 4.1. `None` when that is not where it is
/// in every certificate.
fn end_of(certificate: &[u8]) -> Option<u64> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (tag, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate).filter(|_| tag == SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // The serial number, the algorithm, and who has signed it.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (tag, validity, _) = element(rest)?;
    let (_, _, not_after) = element(validity).filter(|_| tag == SEQUENCE)?;
    let (tag, text, _) = element(not_after)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    // UTCTime and GeneralizedTime: RFC 5280 has both with seconds and without a fraction.
    let text = match (tag, text.len()) {
        (0x17, 12) if text.get(..2)? >= "50" => format!("19{text}"),
        (0x17, 12) => format!("20{text}"),
        (0x18, 14) => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| text.get(from..to);
    let time = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?
    );
    Timestamp::parse(&time).map(Timestamp::seconds)
}

/// The first element of some DER: its tag, what is in it, and what is behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            (length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (inside, behind) = rest.split_at_checked(length)?;
    Some((*tag, inside, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
    }

    #[test]
    fn the_end_of_a_certificate_is_read_and_of_half_of_one_it_is_not() {
        let certificate = certificates(&fixture("tls-server.pem")).unwrap().remove(0);
        // What `openssl x509 -noout -enddate` says of it.
        let end = Timestamp::parse("2126-10-30T01:36:06Z").unwrap();
        assert_eq!(end_of(&certificate), Some(end.seconds()));
        for length in 0..certificate.len() {
            let _ = end_of(&certificate[..length]);
        }
        assert_eq!(end_of(&certificate[..100]), None);
        assert_eq!(end_of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), None);
    }

    #[test]
    fn new_files_are_used_when_they_belong_together_and_else_the_old_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert"), folder.path().join("key"));
        let put = |from: &str, to: &Path| fs::copy(fixture(from), to).unwrap();
        put("tls-server.pem", &certificate);
        put("tls-server.key", &key);
        let metrics = Arc::new(Metrics::default());
        let options = Options::new(folder.path()).tls(&certificate, &key);
        let certificates = Certificates::open(&options, metrics.clone()).unwrap().unwrap();
        let counts = || (metrics.certificates_read.value(), metrics.certificates_refused.value());
        let first = certificates.config();
        let is_first = || Arc::ptr_eq(&first, &certificates.config());

        certificates.read_if_changed();
        assert_eq!(counts(), (0, 0), "nothing has changed");
        // The first of two files is there.
        put("tls-self.pem", &certificate);
        certificates.read_if_changed();
        certificates.read_if_changed();
        assert_eq!(counts(), (0, 1), "it is read once");
        assert!(is_first());
        put("tls-self.key", &key);
        certificates.read_if_changed();
        assert_eq!(counts(), (1, 1));
        assert!(!is_first());
        fs::remove_file(&key).unwrap();
        certificates.read_if_changed();
        assert!(!certificates.read_again());
        assert_eq!(counts(), (1, 3));
        put("tls-self.key", &key);
        assert!(certificates.read_again());
        assert!(metrics.certificate_ends.value() > 0);
    }
}
