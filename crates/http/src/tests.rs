//! The transport against real sockets of this machine.

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use client_core::server::{Method, Purpose, Request, Response, Transport, TransportError};
use linux::clock::LinuxClock;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

use super::test_support::{Seen, converse, listen, read_request, serve, server_config, tls_file};
use super::*;

/// Stops count as prompt within this.
const PROMPT: Duration = Duration::from_secs(1);

/// A server that reads whatever comes and never says a word, and a message when something came.
fn silence() -> (u16, mpsc::Receiver<()>) {
    let (sender, receiver) = mpsc::channel();
    let port = listen(move |_, mut stream| {
        let mut bytes = [0; 1024];
        while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
            let _ = sender.send(());
        }
    });
    (port, receiver)
}

/// What an encrypted server saw of a handshake: its kind, and how many certificates the client showed.
type Handshake = (HandshakeKind, usize);

/// An encrypted server that answers every request with `answer`.
fn serve_tls(config: Arc<ServerConfig>, answer: &'static [u8]) -> (u16, mpsc::Receiver<Handshake>) {
    let (sender, receiver) = mpsc::channel();
    let port = listen(move |number, stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let (seen, requests) = mpsc::channel();
        while !stream.conn.is_handshaking() || stream.conn.complete_io(&mut stream.sock).is_ok() {
            converse(number, &mut stream, &[answer], &seen);
            if requests.try_recv().is_err() {
                return;
            }
            let certificates = stream.conn.peer_certificates().map_or(0, <[_]>::len);
            let _ = sender.send((stream.conn.handshake_kind().unwrap(), certificates));
            if answer.windows(6).any(|window| window == b"close\r") {
                return;
            }
        }
    });
    (port, receiver)
}

fn trusting() -> TlsOptions {
    TlsOptions { extra_authorities: vec![tls_file("server-ca.pem")], ..TlsOptions::default() }
}

struct Client {
    transport: HttpTransport,
    clock: LinuxClock,
}

impl Client {
    fn new() -> Client {
        Client::with(TlsOptions::default(), &[])
    }

    fn with(tls: TlsOptions, variables: &[(&str, String)]) -> Client {
        let clock = LinuxClock::new();
        let environment = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.clone())
        };
        let proxies = ProxyRules::from_environment(environment).unwrap();
        Client { transport: HttpTransport::new(tls, proxies, Arc::new(clock.clone())), clock }
    }

    fn hurried(mut self) -> Client {
        let short = Duration::from_millis(150);
        let deadlines =
            Deadlines { connect: short, send: short, head: short, read: short, body: Some(short) };
        (self.transport.api, self.transport.download) = (deadlines, Deadlines { body: None, ..deadlines });
        self
    }

    fn get(&mut self, url: &str) -> Result<Response, TransportError> {
        self.transport.send(&Request {
            method: Method::Get,
            url,
            headers: vec![("accept", "x/y".into())],
            body: None,
            purpose: Purpose::Api,
        })
    }

    fn text(&mut self, url: &str) -> Result<String, String> {
        let mut text = String::new();
        let mut response = self.get(url).map_err(|error| error.reason)?;
        response.body.read_to_string(&mut text).map_err(|error| error.to_string())?;
        Ok(text)
    }

    /// Asks to stop as soon as `when` says that it is time; the thread's result is when that was.
    fn stop_when<T: Send + 'static>(&self, when: mpsc::Receiver<T>) -> thread::JoinHandle<Instant> {
        let clock = self.clock.clone();
        thread::spawn(move || {
            when.recv().unwrap();
            clock.request_stop();
            Instant::now()
        })
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/path?secret=1")
}

fn https(port: u16) -> String {
    format!("https://127.0.0.1:{port}/path?secret=1")
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_request_is_sent_as_it_is_and_every_answer_is_one() {
    let (port, seen) = serve(&[&[
        b"HTTP/1.1 409 Conflict\r\nX-Y: 1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ]]);
    let mut client = Client::new();
    let url = url(port);
    let mut request = Request {
        method: Method::Put,
        url: &url,
        headers: vec![("content-type", "application/json".into()), ("authorization", "Bearer t".into())],
        body: Some(b"{}"),
        purpose: Purpose::Api,
    };
    let mut response = client.transport.send(&request).unwrap();
    assert_eq!((response.status, response.header("x-y")), (409, Some("1")));
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    let mut body = String::new();
    response.body.read_to_string(&mut body).unwrap();
    assert_eq!(body, "abc");
    request.method = Method::Post;
    request.body = None;
    let response = client.transport.send(&request).unwrap();
    assert_eq!((response.status, response.header("location")), (302, Some("http://elsewhere/")));
    assert_eq!(client.get(&url).unwrap().status, 204);
    let requests: Vec<Seen> = seen.iter().take(3).collect();
    assert!(requests.iter().all(|(connection, _)| *connection == 0));
    let first = &requests[0].1;
    assert!(first.starts_with("PUT /path?secret=1 HTTP/1.1\r\n") && first.ends_with("\r\n\r\n{}"), "{first}");
    assert!(first.contains("\r\nauthorization: Bearer t\r\n") && first.contains("content-length: 2\r\n"));
    assert!(first.contains(concat!("user-agent: rust-ota/", env!("CARGO_PKG_VERSION"))), "{first}");
    assert!(!first.contains("accept") && !first.contains("transfer-encoding"), "{first}");
    assert!(requests[1].1.contains("content-length: 0\r\n"));
    assert!(requests[2].1.contains("accept: x/y\r\n") && !requests[2].1.contains("content-length"));
}

#[test]
fn a_connection_is_kept_and_closed_when_told() {
    let (port, seen) = serve(&[&[OK, OK], &[OK]]);
    let mut client = Client::new();
    assert_eq!(client.text(&url(port)).unwrap(), "ok");
    assert_eq!(client.text(&url(port)).unwrap(), "ok");
    client.transport.idle_connections().close();
    assert_eq!(client.text(&url(port)).unwrap(), "ok");
    let connections: Vec<usize> = seen.iter().take(3).map(|(connection, _)| connection).collect();
    assert_eq!(connections, [0, 0, 1]);
}

#[test]
fn a_request_on_a_connection_that_was_closed_is_repeated_on_a_fresh_one() {
    let (port, seen) = serve(&[&[OK, b""], &[OK]]);
    let mut client = Client::new();
    assert_eq!(client.text(&url(port)).unwrap(), "ok");
    assert_eq!(client.text(&url(port)).unwrap(), "ok");
    let connections: Vec<usize> = seen.iter().take(3).map(|(connection, _)| connection).collect();
    assert_eq!(connections, [0, 0, 1]);
}

#[test]
fn a_request_on_a_fresh_connection_is_not_repeated() {
    let (port, seen) = serve(&[&[b""], &[OK]]);
    let error = Client::new().get(&url(port)).unwrap_err();
    assert!(error.may_pass);
    assert_eq!(error.reason, "the server closed the connection without an answer");
    assert_eq!(seen.try_iter().count(), 1);
}

#[test]
fn a_body_that_ends_too_early_is_an_error() {
    let (port, _seen) = serve(&[
        &[b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234"],
        &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n"],
        &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n0\r\n\r\n"],
        &[b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n01234"],
    ]);
    let mut client = Client::new();
    assert!(client.text(&url(port)).is_err());
    assert!(client.text(&url(port)).is_err());
    assert_eq!(client.text(&url(port)).unwrap(), "01234");
    client.transport.idle_connections().close();
    assert_eq!(client.text(&url(port)).unwrap(), "01234");
}

#[test]
fn a_long_body_is_read_as_a_whole() {
    let port = listen(|_, mut stream| {
        read_request(&mut BufReader::new(stream.try_clone().unwrap())).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n").unwrap();
        stream.write_all(&vec![b'x'; 3_000_000]).unwrap();
    });
    assert_eq!(Client::new().text(&url(port)).unwrap().len(), 3_000_000);
}

#[test]
fn the_head_of_an_answer_is_bounded() {
    let check = |padding: usize| {
        let port = listen(move |_, mut stream| {
            read_request(&mut BufReader::new(stream.try_clone().unwrap())).unwrap();
            let line = format!("X: {}\r\n", "y".repeat(1000 - 5));
            let head = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", line.repeat(padding));
            let _ = stream.write_all(head.as_bytes());
        });
        Client::new().text(&url(port))
    };
    assert_eq!(check(60).unwrap(), "ok");
    assert!(check(70).is_err());
}

#[test]
fn an_answer_in_between_is_not_the_answer() {
    let (port, _seen) = serve(&[&[
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ]]);
    assert_eq!(Client::new().text(&url(port)).unwrap(), "ok");
}

#[test]
fn no_answer_makes_the_client_panic_or_say_what_the_server_did_not() {
    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"x\"\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let mut answers: Vec<Vec<u8>> = vec![
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok".into(),
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok".into(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok".into(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nok".into(),
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok".into(),
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".into(),
        b"HTTP/0.9 200 OK\r\n\r\nok".into(),
        b"HTTP/1.1 302 Found\r\nLocation: ::::\r\n\r\n".into(),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(500)).into(),
    ];
    for base in [OK, CHUNKED] {
        for at in 0..base.len() {
            answers.push(base[..at].to_vec());
            for byte in [0, 0xff, b'\n', b'9'] {
                let mut changed = base.to_vec();
                changed[at] = byte;
                answers.push(changed);
            }
        }
    }
    let sent = answers.clone();
    let port = listen(move |number, mut stream| {
        let Some(answer) = answers.get(number) else { return };
        let _ = read_request(&mut BufReader::new(stream.try_clone().unwrap()));
        let _ = stream.write_all(answer);
    });
    let mut client = Client::new();
    for answer in sent {
        let shown = String::from_utf8_lossy(&answer);
        if let Ok(text) = client.text(&url(port)) {
            assert!(behind_the_header(&shown).contains(&text), "{text:?} of {shown:?}");
            assert!(
                answer.len() >= OK.len() || !OK.starts_with(&answer),
                "{text:?} of an answer cut short: {shown:?}"
            );
        }
        client.transport.idle_connections().close();
    }
}

/// From the first empty line on, with line ends as they should be or without their carriage return.
fn behind_the_header(answer: &str) -> &str {
    let ends = ["\n\r\n", "\n\n"].into_iter().filter_map(|end| answer.find(end));
    ends.min().map_or("", |at| &answer[at..])
}

#[test]
fn what_can_never_be_sent_is_not_worth_another_attempt() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let check = |address: &str, may_pass: bool| {
        let error = Client::new().get(address).unwrap_err();
        assert_eq!(error.may_pass, may_pass, "{address}: {error}");
        assert!(!error.reason.contains("secret"), "{error}");
    };
    check(&url(unused), true);
    check("http://name.invalid/?secret", true);
    check("ftp://127.0.0.1/?secret", false);
    check("http://a b/?secret", false);
}

#[test]
fn every_silence_has_an_end() {
    let (silent, _) = silence();
    let check = |error: TransportError| assert!(error.may_pass, "{error}");
    check(Client::new().hurried().get(&url(silent)).unwrap_err());
    check(Client::with(trusting(), &[]).hurried().get(&https(silent)).unwrap_err());
    let proxy = [("https_proxy", format!("http://127.0.0.1:{silent}"))];
    check(Client::with(trusting(), &proxy).hurried().get(&https(1)).unwrap_err());

    // A body that never ends, a byte at a time: its single waits are short, but the whole is not.
    let drip = listen(|_, mut stream| {
        read_request(&mut BufReader::new(stream.try_clone().unwrap())).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").unwrap();
        while stream.write_all(b"x").is_ok() {
            // The gap between two bytes is what is tested.
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(Client::new().hurried().text(&url(drip)).is_err());

    // A server that takes nothing of a long request.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = url(deaf.local_addr().unwrap().port());
    let body = vec![b'x'; 32 * 1024 * 1024];
    let request = Request {
        method: Method::Put,
        url: &address,
        headers: Vec::new(),
        body: Some(&body),
        purpose: Purpose::Download,
    };
    check(Client::new().hurried().transport.send(&request).unwrap_err());
}

#[test]
fn a_silence_in_a_body_ends_and_the_body_fails() {
    let (sender, keep) = mpsc::channel::<TcpStream>();
    let port = listen(move |_, mut stream| {
        read_request(&mut BufReader::new(stream.try_clone().unwrap())).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").unwrap();
        let _ = sender.send(stream);
    });
    let mut client = Client::new().hurried();
    client.transport.api = client.transport.download;
    assert!(client.text(&url(port)).is_err());
    drop(keep);
}

#[test]
fn a_stop_ends_every_wait_at_once() {
    let check = |tls: TlsOptions, address: &dyn Fn(u16) -> String| {
        let (port, came) = silence();
        let mut client = Client::with(tls, &[]);
        let stopping = client.stop_when(came);
        let error = client.get(&address(port)).unwrap_err();
        let asked = stopping.join().unwrap();
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
        assert!(error.reason.contains("asked to stop"), "{error}");
        let again = client.get(&address(port)).unwrap_err();
        assert!(again.reason.contains("asked to stop"), "{again}");
    };
    check(TlsOptions::default(), &url);
    check(trusting(), &https);
}

#[test]
fn a_stop_ends_a_body() {
    let (sender, came) = mpsc::channel();
    let port = listen(move |_, mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_request(&mut reader).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").unwrap();
        let _ = sender.send(());
        let _ = reader.read(&mut [0]);
    });
    let mut client = Client::new();
    let stopping = client.stop_when(came);
    let error = client.text(&url(port)).unwrap_err();
    assert!(stopping.join().unwrap().elapsed() < PROMPT);
    assert!(error.contains("asked to stop"), "{error}");
}

#[test]
fn a_proxy_gets_the_whole_address_and_the_user() {
    let (port, seen) = serve(&[&[OK, OK]]);
    let variables = [("http_proxy", format!("http://us%40er:pass@127.0.0.1:{port}"))];
    let mut client = Client::with(TlsOptions::default(), &variables);
    for _ in 0..2 {
        assert_eq!(client.text("http://a.example:81/x?y").unwrap(), "ok");
        let (connection, request) = seen.recv().unwrap();
        assert_eq!(connection, 0);
        assert!(request.starts_with("GET http://a.example:81/x?y HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nhost: a.example:81\r\n"), "{request}");
        assert!(request.contains("\r\nproxy-authorization: Basic dXNAZXI6cGFzcw==\r\n"), "{request}");
    }
}

#[test]
fn an_encrypted_connection_goes_through_a_tunnel() {
    let (target, _handshakes) = serve_tls(server_config("server", None), OK);
    let (sender, seen) = mpsc::channel();
    let proxy = listen(move |_, mut stream| {
        let request = read_request(&mut BufReader::with_capacity(1, stream.try_clone().unwrap())).unwrap();
        let place = request.split(' ').nth(1).unwrap().to_owned();
        sender.send(request).unwrap();
        stream.write_all(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n").unwrap();
        let mut to = TcpStream::connect(place).unwrap();
        let (mut back, mut from) = (to.try_clone().unwrap(), stream.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut back, &mut stream));
        let _ = std::io::copy(&mut from, &mut to);
    });
    let variables = [("https_proxy", format!("u:p@127.0.0.1:{proxy}"))];
    assert_eq!(Client::with(trusting(), &variables).text(&https(target)).unwrap(), "ok");
    let request = seen.recv().unwrap();
    assert!(request.starts_with(&format!("CONNECT 127.0.0.1:{target} HTTP/1.1\r\n")), "{request}");
    assert!(request.contains("\r\nProxy-Authorization: Basic dTpw\r\n"), "{request}");
}

#[test]
fn a_proxy_that_refuses_is_named() {
    let (port, _seen) =
        serve(&[&[b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"], &[b"hello\r\n\r\n"]]);
    let variables = [("https_proxy", format!("127.0.0.1:{port}"))];
    let mut client = Client::with(trusting(), &variables);
    let error = client.get("https://a.example/").unwrap_err();
    assert!(error.reason.contains("proxy") && error.reason.contains("407"), "{error}");
    let error = client.get("https://a.example/").unwrap_err();
    assert!(error.reason.contains("not HTTP"), "{error}");
}

#[test]
fn a_server_is_trusted_by_its_authority_and_its_name() {
    let (port, _handshakes) = serve_tls(server_config("server", None), OK);
    assert_eq!(Client::with(trusting(), &[]).text(&https(port)).unwrap(), "ok");
    let check = |tls: TlsOptions, address: &str, may_pass: bool| {
        let error = Client::with(tls, &[]).get(address).unwrap_err();
        assert_eq!(error.may_pass, may_pass, "{error}");
    };
    check(TlsOptions::default(), &https(port), false);
    check(trusting(), &https(port).replace("127.0.0.1", "127.0.0.2"), false);
    let other = TlsOptions { extra_authorities: vec![tls_file("client-ca.pem")], ..TlsOptions::default() };
    check(other, &https(port), false);
    let (expired, _handshakes) = serve_tls(server_config("expired", None), OK);
    check(trusting(), &https(expired), true);
    let skip = TlsOptions { skip_verify: true, ..TlsOptions::default() };
    assert_eq!(Client::with(skip, &[]).text(&https(expired)).unwrap(), "ok");
    let plain = serve(&[&[OK]]).0;
    check(trusting(), &https(plain), true);
}

fn given(name: &str) -> TlsOptions {
    TlsOptions { extra_authorities: vec![tls_file(name)], ..TlsOptions::default() }
}

/// What a client that was given `file` gets from a server with `certificate`.
fn ask(certificate: &str, file: &str, host: &str) -> Result<String, TransportError> {
    let (port, _handshakes) = serve_tls(server_config(certificate, None), OK);
    let mut client = Client::with(given(file), &[]);
    let url = format!("https://{host}:{port}/");
    client.get(&url).map(|_| client.text(&url).unwrap())
}

#[test]
fn a_certificate_that_was_given_by_hand_is_taken_as_openssl_takes_it() {
    for (certificate, host) in [
        ("own", "localhost"),
        ("own", "127.0.0.1"),
        ("own-cn", "localhost"),
        ("own-ip-name", "127.0.0.1"),
        ("leaf-ca-true", "127.0.0.1"),
        ("leaf-cn", "localhost"),
        ("leaf-ip-name", "127.0.0.1"),
        ("server", "127.0.0.1"),
    ] {
        let answer = ask(certificate, &format!("{certificate}.pem"), host);
        assert_eq!(answer.map_err(|error| error.reason).as_deref(), Ok("ok"), "{certificate} {host}");
    }
}

#[test]
fn a_certificate_that_was_given_by_hand_is_good_for_its_host_its_time_and_itself_only() {
    let check = |certificate, file, host, words: &[&str], may_pass| {
        let error = ask(certificate, file, host).unwrap_err();
        assert_eq!(error.may_pass, may_pass, "{error}");
        for word in words {
            assert!(error.reason.contains(word), "{certificate} {file} {host}: {error}");
        }
    };
    check("own", "own.pem", "127.0.0.2", &["is for localhost, 127.0.0.1, not for 127.0.0.2"], false);
    check("own-cn", "own-cn.pem", "127.0.0.1", &["is for localhost, not for 127.0.0.1"], false);
    check("own-ip-name", "own-ip-name.pem", "localhost", &["is for 127.0.0.1, not for localhost"], false);
    check("own-expired", "own-expired.pem", "localhost", &["was good until 2021-01-01", "renewed"], true);
    // The same key and the same name in another certificate are another certificate.
    check("leaf-cn", "own-cn.pem", "localhost", &["ServerCertificate"], false);
    check("leaf-cn", "server.pem", "localhost", &["ServerCertificate"], false);
}

#[test]
fn a_certificate_for_which_an_authority_vouches_is_held_to_the_rules_of_the_web() {
    for (certificate, host, words) in [
        ("leaf-ca-true", "localhost", "CA:FALSE"),
        ("leaf-cn", "localhost", "has no subjectAltName"),
        ("leaf-ip-name", "127.0.0.1", "subjectAltName=IP:127.0.0.1"),
    ] {
        let error = ask(certificate, "odd-ca.pem", host).unwrap_err();
        assert!(error.reason.contains(words) && error.reason.contains("ServerCertificate"), "{error}");
        assert!(!error.may_pass);
    }
}

#[test]
fn one_that_vouches_for_nobody_does_not_when_it_was_given_by_hand() {
    let error = ask("leaf-cn", "leaf-ip-name.pem", "localhost").unwrap_err();
    assert!(error.reason.contains("signed by nobody whom this device trusts"), "{error}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let check = |tls: TlsOptions, expected: &str| {
        let client = Client::with(tls, &[]);
        let error = client.transport.check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let authority = |path: String| TlsOptions { extra_authorities: vec![path], ..TlsOptions::default() };
    check(authority("/nonexistent.pem".into()), "/nonexistent.pem");
    check(authority(tls_file("server.key")), "no certificate in it");
    let folder = tempfile::tempdir().unwrap();
    let pem = std::fs::read_to_string(tls_file("own.pem")).unwrap();
    let der = CertificateDer::from_pem_file(tls_file("own.pem")).unwrap();
    let written = |content: &[u8]| {
        let path = folder.path().join("given.pem").display().to_string();
        std::fs::write(&path, content).unwrap();
        authority(path)
    };
    check(written(pem.replace('\n', " ").as_bytes()), "line ends were lost");
    check(written(pem.trim_end().trim_end_matches('-').as_bytes()), "cut short");
    check(written(&der), "openssl x509 -inform der");
    check(written(b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), "not a certificate");
    assert!(Client::with(written(pem.replace('\n', "\r\n").as_bytes()), &[]).transport.check().is_ok());
    let client = |certificate: &str, key: &str| TlsOptions {
        client: Some((tls_file(certificate), tls_file(key))),
        ..TlsOptions::default()
    };
    check(client("client-chain.pem", "server.key"), "server.key");
    check(client("client-chain.pem", "client-chain.pem"), "client-chain.pem");
    check(client("client.key", "client.key"), "no certificate in it");
}

#[test]
fn a_server_that_asks_gets_the_whole_chain() {
    let config = server_config("server", Some("client-ca.pem"));
    let (port, handshakes) = serve_tls(config, OK);
    let client = Some((tls_file("client-chain.pem"), tls_file("client.key")));
    let mut client = Client::with(TlsOptions { client, ..trusting() }, &[]);
    assert_eq!(client.text(&https(port)).unwrap(), "ok");
    assert_eq!(handshakes.recv().unwrap().1, 2);
    // Nobody without a certificate.
    assert!(Client::with(trusting(), &[]).get(&https(port)).is_err());
}

#[test]
fn the_next_connection_skips_most_of_the_handshake() {
    let (port, handshakes) = serve_tls(server_config("server", None), OK);
    let mut client = Client::with(trusting(), &[]);
    for _ in 0..3 {
        assert_eq!(client.text(&https(port)).unwrap(), "ok");
        assert_eq!(client.text(&https(port)).unwrap(), "ok");
        client.transport.idle_connections().close();
    }
    let kinds: Vec<HandshakeKind> = handshakes.iter().take(6).map(|(kind, _)| kind).collect();
    let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
    assert_eq!(kinds, [full, full, resumed, resumed, resumed, resumed]);
}

#[test]
fn an_encrypted_body_without_a_length_has_to_be_closed_properly() {
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc";
    let (port, _handshakes) = serve_tls(server_config("server", None), answer);
    assert!(Client::with(trusting(), &[]).text(&https(port)).is_err());
}
