//! TLS for questions to a server: whom to trust, and the step of the HTTP client that encrypts.
//!
//! Trusted are the authorities of the system, or instead of them those of one file. A certificate in that file that is
//! the server's own is trusted as it is, whoever has signed it, whatever it is called and whether it says of itself that
//! it is an authority: that is what `openssl req -x509` makes, and who has its key is who was meant.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

/// Where certificate authorities are looked for, as the usual distributions place them.
const CA_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// The buffers of one connection.
const BUFFER_BYTES: usize = 64 * 1024;

/// Why a connection could not be encrypted.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// The file of authorities is of no use.
    Authorities {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// No file was named, and the system has none.
    NoAuthorities,
    /// The address has no name that a certificate could be for.
    Name {
        /// The name.
        name: String,
    },
    /// The server is not trusted.
    Certificate {
        /// The server.
        name: String,
        /// Why.
        reason: CertificateError,
    },
    /// The server and this program did not come together.
    Handshake {
        /// The server.
        name: String,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Authorities { path, reason } => write!(f, "{}: {reason}", path.display()),
            TlsError::NoAuthorities => {
                write!(
                    f,
                    "this system has no certificate authorities; name those of the server with --ca FILE"
                )
            }
            TlsError::Name { name } => write!(f, "{name:?} is no name of a server"),
            TlsError::Certificate { name, reason } => write!(f, "the certificate of {name} {}", why(reason)),
            TlsError::Handshake { name, reason } => write!(f, "no TLS with {name}: {reason}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// Why a certificate is refused: the reasons that people meet, in words, and the others as the library has them.
fn why(reason: &CertificateError) -> String {
    use CertificateError as E;
    if matches!(reason, E::UnknownIssuer) {
        return "is of no authority that is trusted here; name its authority, or the certificate itself, with --ca FILE"
            .to_owned();
    }
    if matches!(reason, E::NotValidForName | E::NotValidForNameContext { .. }) {
        return "is for another name".to_owned();
    }
    if matches!(reason, E::Expired | E::ExpiredContext { .. }) {
        return "has expired".to_owned();
    }
    if matches!(reason, E::NotValidYet | E::NotValidYetContext { .. }) {
        return "is not valid yet, says the clock of this machine".to_owned();
    }
    if format!("{reason:?}").contains("CaUsedAsEndEntity") {
        return "is one of an authority (CA:TRUE); name exactly it with --ca FILE".to_owned();
    }
    format!("is refused: {reason}")
}

/// Whom to trust. Nothing is read before the first encrypted connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    authorities: Option<PathBuf>,
    made: Arc<Mutex<Option<Arc<ClientConfig>>>>,
}

impl Trust {
    /// Those of the system, or those of this file.
    pub(crate) fn new(authorities: Option<&Path>) -> Trust {
        Trust { authorities: authorities.map(Path::to_owned), made: Arc::default() }
    }

    /// The same for the library that speaks TLS.
    ///
    /// # Errors
    /// The file is of no use.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = &*made {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.build()?);
        *made = Some(Arc::clone(&config));
        Ok(config)
    }

    fn build(&self) -> Result<ClientConfig, TlsError> {
        let (path, certificates) = certificates(self.authorities.as_deref())?;
        let wrong = |reason: String| TlsError::Authorities { path: path.clone(), reason };
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            // One that is too odd to vouch for others still counts for itself, and the others still count.
            if let Err(error) = roots.add(certificate.clone()) {
                log::debug!("{}: {error}", path.display());
            }
        }
        let own = if self.authorities.is_some() { certificates } else { Vec::new() };
        let provider = Arc::new(ring::default_provider());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = Verifier { own, chains: chains.build().ok(), provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
    }

    /// A session with `name` that has not begun.
    fn session(&self, name: &str) -> Result<ClientConnection, TlsError> {
        let host = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let server = ServerName::try_from(host).map_err(|_| TlsError::Name { name: name.to_owned() })?;
        let handshake =
            |error: rustls::Error| TlsError::Handshake { name: name.to_owned(), reason: error.to_string() };
        ClientConnection::new(self.config()?, server).map_err(handshake)
    }

    /// A session over `stream` that has begun.
    fn begin<S: Read + Write>(
        &self,
        name: &str,
        mut stream: S,
    ) -> Result<StreamOwned<ClientConnection, S>, TlsError> {
        let mut session = self.session(name)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream).map_err(|error| refused(name, &error))?;
        }
        Ok(StreamOwned::new(session, stream))
    }
}

/// The certificates of those who are trusted, and the file that they are from: this one, or that of the system.
///
/// # Errors
/// There are none.
pub(crate) fn certificates(
    authorities: Option<&Path>,
) -> Result<(PathBuf, Vec<CertificateDer<'static>>), TlsError> {
    let found = || CA_BUNDLES.iter().map(Path::new).find(|path| fs::metadata(path).is_ok());
    let path = authorities.or_else(found).ok_or(TlsError::NoAuthorities)?;
    let wrong = |reason: String| TlsError::Authorities { path: path.to_owned(), reason };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let certificates: Result<Vec<_>, _> = read.collect();
    let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok((path.to_owned(), certificates))
}

fn refused(name: &str, error: &io::Error) -> TlsError {
    let name = name.to_owned();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            TlsError::Certificate { name, reason: reason.clone() }
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            TlsError::Handshake { name, reason: "what it answers is no TLS; is it http?".to_owned() }
        }
        Some(other) => TlsError::Handshake { name, reason: other.to_string() },
        None => TlsError::Handshake { name, reason: error.to_string() },
    }
}

/// Trusts what the file names itself, and otherwise whom its authorities vouch for.
#[derive(Debug)]
struct Verifier {
    own: Vec<CertificateDer<'static>>,
    /// `None` when nothing in the file can vouch for anything.
    chains: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.own.iter().any(|own| own == certificate) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.chains {
            Some(chains) => chains.verify_server_cert(certificate, intermediates, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
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

/// The step of the HTTP client that encrypts, where the address says so.
#[derive(Debug)]
pub(super) struct Encrypt(pub(super) Trust);

impl<In: Transport> Connector<In> for Encrypt {
    type Out = Either<In, Encrypted<In>>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let name = details.uri.host().unwrap_or_default();
        let mut adapter = TransportAdapter::new(transport, details.current_time.clone());
        adapter.set_timeout(details.timeout);
        let stream = self.0.begin(name, adapter).map_err(|error| ureq::Error::Other(Box::new(error)))?;
        let buffers = LazyBuffers::new(BUFFER_BYTES, BUFFER_BYTES);
        Ok(Some(Either::B(Encrypted { buffers, stream })))
    }
}

/// A connection over TLS.
pub(super) struct Encrypted<T: Transport> {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter<T>>,
}

impl<T: Transport> fmt::Debug for Encrypted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted").finish_non_exhaustive()
    }
}

impl<T: Transport> Transport for Encrypted<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// A stream without the HTTP client, encrypted or not.
pub(super) enum Stream {
    Plain(TcpStream),
    Encrypted(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub(super) fn plain(stream: TcpStream) -> Stream {
        Stream::Plain(stream)
    }

    pub(super) fn encrypted(trust: &Trust, name: &str, stream: TcpStream) -> Result<Stream, TlsError> {
        Ok(Stream::Encrypted(Box::new(trust.begin(name, stream)?)))
    }

    pub(super) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.set_read_timeout(Some(timeout)),
            Stream::Encrypted(stream) => stream.sock.set_read_timeout(Some(timeout)),
        }
    }
}

impl Read for Stream {
    /// A signal ends a read that has a time limit, whatever its handler asks for (signal(7)): it is read again.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Stream::Plain(stream) => stream.read(buffer),
                Stream::Encrypted(stream) => stream.read(buffer),
            };
            if !read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
                return read;
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Encrypted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Encrypted(stream) => stream.flush(),
        }
    }
}
