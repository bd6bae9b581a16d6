//! Servers on this machine for tests of connections, here and in the proxy of the daemon.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// What a server saw: the number of the connection, and the request.
pub(crate) type Seen = (usize, String);

pub(crate) trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// A server on this machine that gives each connection to `work`, with its number.
pub(crate) fn listen(work: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> u16 {
    // Every address of this machine: one of them is not in the certificate.
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let work = Arc::new(work);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let work = Arc::clone(&work);
            thread::spawn(move || work(number, stream.unwrap()));
        }
    });
    port
}

/// A request: its head in lower case, and its body.
pub(crate) fn read_request(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.to_ascii_lowercase().lines().find_map(|line| {
        line.strip_prefix("content-length: ").map(|length| length.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

/// Answers request after request on one connection. An empty answer closes it, and so does the end of the answers.
pub(crate) fn converse(
    number: usize,
    stream: &mut dyn ReadWrite,
    answers: &[&[u8]],
    seen: &mpsc::Sender<Seen>,
) {
    let mut reader = BufReader::new(stream);
    for answer in answers {
        let Some(request) = read_request(&mut reader) else { return };
        let _ = seen.send((number, request));
        if answer.is_empty() || reader.get_mut().write_all(answer).is_err() {
            return;
        }
    }
}

/// A plain server: connection `n` gets the answers of `connections[n]`.
pub(crate) fn serve(connections: &'static [&'static [&'static [u8]]]) -> (u16, mpsc::Receiver<Seen>) {
    let (sender, receiver) = mpsc::channel();
    let port = listen(move |number, mut stream| {
        let Some(answers) = connections.get(number) else { return };
        converse(number, &mut stream, answers, &sender);
    });
    (port, receiver)
}

pub(crate) fn tls_file(name: &str) -> String {
    // Of this crate, whoever is built with this file.
    let package = env!("CARGO_MANIFEST_DIR");
    let places = ["tests/tls", "../http/tests/tls"].map(|place| format!("{package}/{place}/{name}"));
    let [here, there] = places;
    if Path::new(&here).exists() { here } else { there }
}

pub(crate) fn server_config(name: &str, client_authority: Option<&str>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match client_authority {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(tls_file(authority)).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let certificate = CertificateDer::from_pem_file(tls_file(&format!("{name}.pem"))).unwrap();
    let key = if Path::new(&tls_file(&format!("{name}.key"))).exists() { name } else { "odd" };
    let key = PrivateKeyDer::from_pem_file(tls_file(&format!("{key}.key"))).unwrap();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}
