//! The proxy against real sockets of this machine: honest clients, and others.

use std::io::BufReader;
use std::sync::mpsc;

use linux::clock::LinuxClock;
use rustls::{ServerConnection, StreamOwned};

use super::test_support::{listen, read_request, serve, server_config, tls_file};
use super::*;
use http::{HttpTransport, ProxyRules, TlsOptions};

const TOKEN: &str = "a.b.c";
const PATH: &str = "/api/devices/v1/deviceconfig/configuration";
const CONNECT: &str = "/api/devices/v1/deviceconnect/connect";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Server: yes\r\n\r\nok";
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
/// Long enough for anything that happens at all.
const LONG_ENOUGH: Duration = Duration::from_secs(30);

fn trusting() -> TlsOptions {
    TlsOptions { extra_authorities: vec![tls_file("server-ca.pem")], ..TlsOptions::default() }
}

fn dialer(tls: TlsOptions, variables: &[(&str, String)]) -> Arc<Dialer> {
    let environment = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone())
    };
    let proxies = ProxyRules::from_environment(environment).unwrap();
    HttpTransport::new(tls, proxies, clock()).dialer()
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(LinuxClock::new())
}

fn with(dialer: Arc<Dialer>) -> LocalProxy {
    LocalProxy::new(dialer, clock()).unwrap()
}

fn proxy() -> LocalProxy {
    with(dialer(TlsOptions::default(), &[]))
}

/// One that gives up early.
fn hurried() -> LocalProxy {
    let short = Duration::from_millis(200);
    let patience = Patience { head: short, silence: short, farewell: short, ..Patience::default() };
    LocalProxy::with(dialer(TlsOptions::default(), &[]), clock(), patience, GRACE).unwrap()
}

/// The way through `proxy` to the server at `port`.
fn open(proxy: &LocalProxy, port: u16) -> Access {
    proxy.serve(&format!("http://127.0.0.1:{port}"), TOKEN).unwrap()
}

fn connect(access: &Access) -> TcpStream {
    let stream = TcpStream::connect(access.address.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(LONG_ENOUGH)).unwrap();
    stream
}

/// Everything that is answered to `request`.
fn ask(access: &Access, request: &str) -> String {
    let mut stream = connect(access);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn request(method: &str, path: &str, rest: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{rest}")
}

fn get() -> String {
    request("GET", PATH, "\r\n")
}

fn upgrade() -> String {
    request("GET", CONNECT, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
}

#[track_caller]
fn expect_status(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
}

/// Looks until `look` sees something.
#[track_caller]
fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG_ENOUGH;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "it did not happen");
        // The other side tells nobody: between two looks there is nothing to wait on.
        thread::sleep(Duration::from_millis(5));
    }
}

/// A connection that has become a WebSocket.
fn websocket(access: &Access) -> TcpStream {
    let mut stream = connect(access);
    stream.write_all(upgrade().as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    expect_status(&head, 101);
    assert!(head.contains("\r\nConnection: Upgrade\r\n"), "{head}");
    stream
}

/// Answers a request for a WebSocket and says everything back that comes.
fn echo(mut stream: TcpStream) {
    read_request(&mut BufReader::with_capacity(1, stream.try_clone().unwrap())).unwrap();
    stream.write_all(SWITCHED).unwrap();
    let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
}

#[test]
fn a_request_arrives_with_the_token_its_length_and_its_body() {
    let (port, seen) = serve(&[&[OK]]);
    let proxy = proxy();
    let answer = ask(&open(&proxy, port), &request("PUT", PATH, "Content-Length: 3\r\nX-Mine: 1\r\n\r\nabc"));
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\nX-Server: yes\r\n\r\nok"
    );
    let (_, request) = seen.recv().unwrap();
    assert_eq!(
        request,
        format!(
            "PUT {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer a.b.c\r\n\
             Connection: close\r\nContent-Length: 3\r\nX-Mine: 1\r\n\r\nabc"
        )
    );
}

#[test]
fn chunks_pass_in_both_directions_and_what_follows_them_does_not() {
    let (sender, seen) = mpsc::channel();
    let port = listen(move |_, mut stream| {
        let mut bytes = vec![0; 4096];
        let mut length = 0;
        while !bytes[..length].ends_with(b"0\r\n\r\n") {
            length += stream.read(&mut bytes[length..]).unwrap();
        }
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nmore";
        stream.write_all(answer).unwrap();
        // Whatever else comes until the proxy closes.
        stream.read_to_end(&mut bytes).unwrap();
        bytes.drain(..4096);
        sender.send(bytes).unwrap();
    });
    let proxy = proxy();
    let smuggled = request("GET", "/api/management/v1/x", "\r\n");
    let text =
        request("PUT", PATH, &format!("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{smuggled}"));
    let answer = ask(&open(&proxy, port), &text);
    assert!(answer.ends_with("Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), "{answer}");
    assert_eq!(seen.recv().unwrap(), b"");
}

#[test]
fn who_has_no_token_gets_nowhere() {
    let (port, seen) = serve(&[&[OK]]);
    let proxy = proxy();
    let access = open(&proxy, port);
    expect_status(&ask(&access, &get().replace(TOKEN, "a.b.d")), 401);
    expect_status(&ask(&access, &get().replace("Authorization", "X")), 401);
    expect_status(&ask(&access, &upgrade().replace(TOKEN, "a.b")), 401);
    expect_status(&ask(&access, &get().replace(PATH, "/api/devices/v1/authentication/auth_requests")), 403);
    expect_status(&ask(&access, &get().replace(PATH, "/api/management/v1/devices")), 404);
    assert!(seen.try_recv().is_err());
    expect_status(&ask(&access, &get()), 200);
}

#[test]
fn a_server_without_an_answer_is_reported_as_such() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let silent = listen(|_, stream| drop(stream));
    let (nonsense, _seen) = serve(&[&[b"SSH-2.0-x\r\n\r\n"]]);
    let (not_asked_for, _seen) = serve(&[&[SWITCHED]]);
    let proxy = proxy();
    for port in [closed, silent, nonsense, not_asked_for] {
        expect_status(&ask(&open(&proxy, port), &get()), 503);
    }
}

#[test]
fn the_settings_of_the_daemon_hold_for_encryption_and_proxies() {
    let config = server_config("server", Some("client-ca.pem"));
    let (sender, seen) = mpsc::channel();
    let port = listen(move |_, stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
        let mut reader = BufReader::new(&mut stream);
        let Some(request) = read_request(&mut reader) else { return };
        sender.send(request).unwrap();
        stream.write_all(OK).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    });
    let client = Some((tls_file("client-chain.pem"), tls_file("client.key")));
    let secure = with(dialer(TlsOptions { client, ..trusting() }, &[]));
    let access = secure.serve(&format!("https://127.0.0.1:{port}/base/"), TOKEN).unwrap();
    expect_status(&ask(&access, &get()), 200);
    assert!(seen.recv().unwrap().starts_with(&format!("GET /base{PATH} HTTP/1.1\r\n")));
    let untrusting = proxy();
    let access = untrusting.serve(&format!("https://127.0.0.1:{port}"), TOKEN).unwrap();
    expect_status(&ask(&access, &get()), 503);

    let (port, seen) = serve(&[&[OK]]);
    let variables = [("http_proxy", format!("http://u:p@127.0.0.1:{port}"))];
    let through = with(dialer(TlsOptions::default(), &variables));
    expect_status(&ask(&through.serve("http://server.test:8080", TOKEN).unwrap(), &get()), 200);
    let (_, request) = seen.recv().unwrap();
    assert!(request.starts_with(&format!("GET http://server.test:8080{PATH} HTTP/1.1\r\n")), "{request}");
    assert!(request.contains("\r\nproxy-authorization: Basic dTpw\r\n"), "{request}");
}

/// So much that no buffer holds it.
fn much() -> Vec<u8> {
    (0..2_000_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[test]
fn long_bodies_pass_in_both_directions() {
    let (sender, received) = mpsc::channel();
    let port = listen(move |_, mut stream| {
        let mut reader = BufReader::with_capacity(1, stream.try_clone().unwrap());
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let mut body = vec![0; much().len()];
        stream.read_exact(&mut body).unwrap();
        sender.send(body).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", much().len());
        stream.write_all(answer.as_bytes()).unwrap();
        stream.write_all(&much()).unwrap();
    });
    let proxy = proxy();
    let mut stream = connect(&open(&proxy, port));
    let lines = format!("Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", much().len());
    stream.write_all(request("PUT", PATH, &lines).as_bytes()).unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&much()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(received.recv().unwrap() == much());
    assert!(answer.ends_with(&much()) && answer.len() < much().len() + 200);
}

#[test]
fn an_answer_before_the_end_of_the_body_arrives() {
    let port = listen(|_, mut stream| {
        let _ = stream.read(&mut [0; 100]);
        stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig").unwrap();
    });
    let proxy = proxy();
    let mut stream = connect(&open(&proxy, port));
    stream.write_all(request("PUT", PATH, "Content-Length: 100000000\r\n\r\n").as_bytes()).unwrap();
    // It takes the answer before it goes on, or while it does.
    let _ = stream.write_all(&vec![0; 1 << 20]);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    expect_status(&answer, 413);
    assert!(answer.ends_with("big"), "{answer}");
}

#[test]
fn an_answer_that_is_cut_off_looks_cut_off() {
    let (port, _seen) = serve(&[&[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]]);
    let proxy = proxy();
    assert!(ask(&open(&proxy, port), &get()).ends_with("Content-Length: 9\r\n\r\nabc"));
}

#[test]
fn a_websocket_passes_bytes_both_ways_until_one_side_ends_it() {
    let port = listen(|_, stream| echo(stream));
    let proxy = proxy();
    let access = open(&proxy, port);
    let mut stream = websocket(&access);
    let mut buffer = [0; 5];
    for word in [b"hello", b"world"] {
        stream.write_all(word).unwrap();
        stream.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, word);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut buffer).unwrap(), 0);

    let port = listen(|_, mut stream| {
        read_request(&mut BufReader::new(stream.try_clone().unwrap())).unwrap();
        stream.write_all(&[SWITCHED, b"bye"].concat()).unwrap();
    });
    let mut stream = websocket(&open(&proxy, port));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
}

#[test]
fn an_encrypted_websocket_that_is_full_in_both_directions_does_not_hang() {
    let config = server_config("server", None);
    let port = listen(move |_, stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
        let mut byte = [0];
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(SWITCHED).unwrap();
        // Says much before it listens, and then says everything back.
        stream.write_all(&much()).unwrap();
        let mut heard = vec![0; much().len()];
        stream.read_exact(&mut heard).unwrap();
        stream.write_all(&heard).unwrap();
        stream.flush().unwrap();
        let _ = stream.read(&mut byte);
    });
    let proxy = with(dialer(trusting(), &[]));
    let mut stream = websocket(&proxy.serve(&format!("https://127.0.0.1:{port}"), TOKEN).unwrap());
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || writer.write_all(&much()));
    let mut heard = vec![0; 2 * much().len()];
    stream.read_exact(&mut heard).unwrap();
    writing.join().unwrap().unwrap();
    assert!(heard[..much().len()] == much() && heard[much().len()..] == much());
}

#[test]
fn there_are_only_so_many_websockets() {
    let port = listen(|_, stream| echo(stream));
    let proxy = proxy();
    let access = open(&proxy, port);
    let mut open: Vec<TcpStream> = (0..WEBSOCKETS).map(|_| websocket(&access)).collect();
    expect_status(&ask(&access, &upgrade()), 503);
    drop(open.pop());
    wait_for(|| {
        let mut stream = connect(&access);
        stream.write_all(upgrade().as_bytes()).unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        (&start == b"HTTP/1.1 101").then_some(())
    });
}

#[test]
fn a_server_without_websockets_may_say_so() {
    let (port, _seen) = serve(&[&[b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone"]]);
    let proxy = proxy();
    let answer = ask(&open(&proxy, port), &upgrade());
    expect_status(&answer, 404);
    assert!(answer.ends_with("none"), "{answer}");
}

#[test]
fn a_new_token_gets_a_new_port_and_the_old_one_is_served_for_a_while() {
    let (port, seen) = serve(&[&[OK], &[OK]]);
    let server = format!("http://127.0.0.1:{port}");
    let grace = Duration::from_millis(500);
    let dialer = dialer(TlsOptions::default(), &[]);
    let proxy = LocalProxy::with(dialer, clock(), Patience::default(), grace).unwrap();
    let old = proxy.serve(&server, TOKEN).unwrap();
    assert_eq!(proxy.serve(&server, TOKEN).unwrap(), old);
    let new = proxy.serve(&server, "d.e.f").unwrap();
    assert_ne!(new.address, old.address);
    expect_status(&ask(&new, &get()), 401);
    expect_status(&ask(&old, &get().replace(TOKEN, "d.e.f")), 401);
    // The server knows the new token only, perhaps.
    expect_status(&ask(&old, &get()), 200);
    assert!(seen.recv().unwrap().1.contains("\r\nAuthorization: Bearer d.e.f\r\n"));
    wait_for(|| TcpStream::connect(old.address.strip_prefix("http://").unwrap()).err());
    expect_status(&ask(&new, &get().replace(TOKEN, "d.e.f")), 200);
}

#[test]
fn websockets_outlive_a_change_of_the_token_and_end_with_the_last_one() {
    let port = listen(|_, stream| echo(stream));
    let server = format!("http://127.0.0.1:{port}");
    let dialer = dialer(TlsOptions::default(), &[]);
    let proxy = LocalProxy::with(dialer, clock(), Patience::default(), Duration::from_millis(1)).unwrap();
    let access = proxy.serve(&server, TOKEN).unwrap();
    let mut stream = websocket(&access);
    let new = proxy.serve(&server, "d.e.f").unwrap();
    wait_for(|| TcpStream::connect(access.address.strip_prefix("http://").unwrap()).err());
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    proxy.close();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    wait_for(|| TcpStream::connect(new.address.strip_prefix("http://").unwrap()).err());
    assert_ne!(proxy.serve(&server, "d.e.f").unwrap(), new);
}

#[test]
fn tokens_that_change_all_the_time_do_not_pile_up_ports() {
    let (port, _seen) = serve(&[&[OK]]);
    let proxy = proxy();
    let accesses: Vec<Access> = (0..3 * DOORS)
        .map(|number| proxy.serve(&format!("http://127.0.0.1:{port}"), &format!("a.b.{number}")).unwrap())
        .collect();
    assert_eq!(proxy.shared.state().doors.len(), DOORS);
    let last = accesses.last().unwrap();
    expect_status(&ask(last, &get().replace(TOKEN, &last.token)), 200);
}

#[test]
fn hostile_clients_are_refused_and_keep_nobody_out_for_long() {
    let (port, _seen) = serve(&[&[OK]]);
    let proxy = hurried();
    let access = open(&proxy, port);
    expect_status(&ask(&access, "\x16\x03\x01 hello"), 400);
    expect_status(&ask(&access, &request("GET", PATH, &format!("X: {}", "y".repeat(REQUEST_BYTES)))), 431);
    expect_status(&ask(&access, "GET /api/devices/v1/x HTTP/1.1\r\n"), 408);
    expect_status(
        &ask(&access, &request("PUT", PATH, "Content-Length: 1\r\nContent-Length: 2\r\n\r\n")),
        400,
    );
    let silent: Vec<TcpStream> = (0..CONNECTIONS + 10).map(|_| connect(&access)).collect();
    expect_status(&ask(&access, &get()), 200);
    drop(silent);
    wait_for(|| proxy.shared.state().connections.is_empty().then_some(()));
}

#[test]
fn a_body_that_is_malformed_or_never_comes_ends_the_request() {
    let port = listen(|_, mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let proxy = hurried();
    let access = open(&proxy, port);
    let chunked = |body: &str| request("PUT", PATH, &format!("Transfer-Encoding: chunked\r\n\r\n{body}"));
    expect_status(&ask(&access, &chunked("3\nabc")), 400);
    expect_status(&ask(&access, &chunked("3\r\nabc")), 503);
    expect_status(&ask(&access, &request("PUT", PATH, "Content-Length: 9\r\n\r\nabc")), 503);
    let mut leaves = connect(&access);
    leaves.write_all(request("PUT", PATH, "Content-Length: 9\r\n\r\nabc").as_bytes()).unwrap();
    drop(leaves);
    wait_for(|| proxy.shared.state().connections.is_empty().then_some(()));
}

#[test]
fn a_client_that_never_reads_is_given_up() {
    let (sender, ended) = mpsc::channel();
    let port = listen(move |_, mut stream| {
        let _ = stream.read(&mut [0; 1000]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[0; 65536]).is_ok() {}
        sender.send(()).unwrap();
    });
    let proxy = hurried();
    let mut never_reads = connect(&open(&proxy, port));
    never_reads.write_all(get().as_bytes()).unwrap();
    ended.recv_timeout(LONG_ENOUGH).unwrap();
    wait_for(|| proxy.shared.state().connections.is_empty().then_some(()));
}
