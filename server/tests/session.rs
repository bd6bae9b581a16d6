//! Logins of the page: a cookie, who may use it, and the list of one's logins.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use server_core::Running;
use server_core::client::FrameStream;

use crate::common::{Answer, accepted, error, login, manage, raw, request, server, server_in, soon, until};
use crate::users::{PASSWORD, USERADM, ask, at_once, token, user};

const ADA: &str = "ada@example.org";

/// What the page sends beside its cookie.
const PAGE: (&str, &str) = ("X-Requested-With", "rust-ota");

fn post(running: &Running, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    request(running, "POST", &format!("{USERADM}/{path}"), headers, body.to_string().as_bytes())
}

/// The cookie that an answer sets, without what the browser is told about it.
#[track_caller]
fn cookie_of(answer: &Answer) -> String {
    let set = answer.header("set-cookie").expect("a cookie");
    set.split(';').next().unwrap().to_owned()
}

/// Logs in as the page does.
#[track_caller]
fn enter(running: &Running, email: &str) -> String {
    let answer = post(running, "auth/session", &[PAGE], &json!({ "email": email, "password": PASSWORD }));
    assert_eq!(answer.status, 204, "{}", answer.text());
    cookie_of(&answer)
}

/// Asks as the page does.
fn from_page(running: &Running, cookie: &str, method: &str, path: &str, body: &str) -> Answer {
    let origin = running.url().to_owned();
    let headers = [("Cookie", cookie), PAGE, ("Origin", &*origin)];
    request(running, method, path, &headers, body.as_bytes())
}

fn me(running: &Running, cookie: &str) -> u16 {
    request(running, "GET", &format!("{USERADM}/users/me"), &[("Cookie", cookie)], b"").status
}

#[test]
fn the_page_logs_in_and_out_with_a_cookie() {
    let (running, _, folder) = server(|options| options);
    let ada = user(&running, ADA, &[]);
    let answer = post(&running, "auth/session", &[PAGE], &json!({ "email": ADA, "password": PASSWORD }));
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let set = answer.header("set-cookie").unwrap();
    assert!(set.starts_with("rust_ota_session=ey"), "{set}");
    assert!(set.ends_with("; Path=/; Max-Age=604800; HttpOnly; SameSite=Strict"), "{set}");
    let cookie = cookie_of(&answer);
    let path = format!("{USERADM}/users/me");
    let shown = request(&running, "GET", &path, &[("Cookie", &format!("theme=dark; {cookie}"))], b"");
    assert_eq!((shown.status, shown.json()["id"].as_str()), (200, Some(&*ada)));
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    assert_eq!(shown.header("x-content-type-options"), Some("nosniff"));
    // What the cookie says is not looked at where something else says it.
    let both = [("Cookie", cookie.as_str()), ("Authorization", "Bearer wrong")];
    assert_eq!(error(&request(&running, "GET", &path, &both, b"")), 401);
    assert_eq!(me(&running, "rust_ota_session="), 401);
    assert_eq!(me(&running, "rust_ota_session=wrong"), 401);

    // A start ends nothing, and a logout is remembered.
    running.stop();
    let (running, _) = server_in(folder.path(), |options| options);
    assert_eq!(me(&running, &cookie), 200);
    let session = format!("{USERADM}/auth/session");
    for _ in 0..2 {
        let gone = from_page(&running, &cookie, "DELETE", &session, "");
        assert_eq!(gone.status, 204);
        let forgotten = "rust_ota_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict";
        assert_eq!(gone.header("set-cookie"), Some(forgotten));
    }
    assert_eq!(me(&running, &cookie), 401);
    running.stop();
    let (running, _) = server_in(folder.path(), |options| options);
    assert_eq!(me(&running, &cookie), 401);
}

#[test]
fn a_login_without_an_end_lasts_a_year_and_under_tls_the_cookie_is_secure() {
    let (running, _, _folder) = server(|options| options.public_url("https://fleet.example.org/"));
    user(&running, ADA, &[]);
    let body = json!({ "email": ADA, "password": PASSWORD, "no_expiry": true });
    let answer = post(&running, "auth/session", &[("Origin", "https://fleet.example.org")], &body);
    let set = answer.header("set-cookie").unwrap();
    assert!(set.ends_with("; Max-Age=31536000; HttpOnly; SameSite=Strict; Secure"), "{set}");
}

#[test]
fn what_no_page_of_this_server_has_sent_is_refused() {
    let (running, _, _folder) = server(|options| options);
    user(&running, ADA, &[]);
    let cookie = enter(&running, ADA);
    let settings = format!("{USERADM}/settings/me");
    let own = running.url().to_owned();
    let (cookie, own) = (("Cookie", cookie.as_str()), ("Origin", own.as_str()));
    let foreign = ("Origin", "http://evil.example.org");
    let post = |headers: &[(&str, &str)]| request(&running, "POST", &settings, headers, b"{\"a\":1}");
    for headers in [
        &[cookie][..],
        &[cookie, own],
        &[cookie, PAGE, foreign],
        &[cookie, PAGE, ("Origin", "null")],
        &[cookie, PAGE, ("Origin", "https://127.0.0.1")],
        &[cookie, ("X-Requested-With", "XMLHttpRequest"), own],
    ] {
        let answer = post(headers);
        assert_eq!(error(&answer), 403, "{headers:?}");
    }
    assert_eq!(request(&running, "GET", &settings, &[cookie], b"").json(), json!({}), "nothing was changed");
    assert_eq!(post(&[cookie, PAGE]).status, 201);
    assert_eq!(post(&[cookie, PAGE, own]).status, 201);
    for method in ["PUT", "DELETE", "PATCH"] {
        let path = format!("{USERADM}/auth/session");
        assert_eq!(error(&request(&running, method, &path, &[cookie], b"")), 403, "{method}");
    }
    // What reads changes nothing, and another page does not see it.
    assert_eq!(request(&running, "GET", &settings, &[cookie, foreign], b"").status, 200);
    assert_eq!(request(&running, "HEAD", &settings, &[cookie], b"").status, 405);
    // Nobody is made to be at work as somebody else.
    let body = json!({ "email": ADA, "password": PASSWORD });
    assert_eq!(error(&self::post(&running, "auth/session", &[foreign], &body)), 403);
}

#[test]
fn no_other_page_opens_a_websocket() {
    let (running, _, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    user(&running, ADA, &[]);
    let cookie = enter(&running, ADA);
    let of_device = "/api/devices/v1/deviceconnect/connect";
    let _connected = FrameStream::open(running.url(), of_device, &device.token).unwrap();
    let host = running.url().strip_prefix("http://").unwrap().to_owned();
    let open_with = |cookie: &str, origin: &str| {
        let mut head = format!("GET /api/management/v1/deviceconnect/devices/{id}/connect HTTP/1.1\r\n");
        head += &format!("Host: {host}\r\nCookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n");
        head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        head += origin;
        // The server closes what it refuses; what it takes ends with the writing side.
        status_of(&running, &format!("{head}\r\n"))
    };
    let open = |origin: &str| open_with(&cookie, origin);
    assert_eq!(open("Origin: http://evil.example.org\r\n"), 403);
    assert_eq!(open("Origin: null\r\n"), 403);
    assert_eq!(open(""), 403);
    let own = format!("Origin: http://{host}\r\n");
    assert_eq!(open(&own), 101);
    // The cookie in which programs may bring a token is sent by browsers as well.
    let jwt = format!("JWT={}", token(&running, ADA));
    for (origin, status) in
        [("Origin: http://evil.example.org\r\n", 403), ("Origin: null\r\n", 403), ("", 101), (&own, 101)]
    {
        assert_eq!(open_with(&jwt, origin), status, "{origin}");
    }
    // That of the page comes first, wherever it stands.
    assert_eq!(open_with(&format!("JWT=wrong; {cookie}"), &own), 101);
    assert_eq!(open_with("JWT=wrong", &own), 401);
    assert_eq!(open_with(&format!("{jwt}; rust_ota_session=wrong"), &own), 401);
}

/// The status of an answer, of which no more is read.
fn status_of(running: &Running, head: &str) -> u16 {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", running.port())).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_cookie_is_none_of_a_device() {
    let (running, _, _folder) = server(|options| options);
    let (device, _) = accepted(&running, "a");
    let cookie = format!("rust_ota_session={}", device.token);
    let path = "/api/devices/v2/deployments/device/deployments/next";
    assert_eq!(error(&request(&running, "POST", path, &[("Cookie", &cookie), PAGE], b"{}")), 401);
    assert_eq!(me(&running, &cookie), 401);
}

#[test]
fn logins_are_listed_and_each_is_ended_alone() {
    let (running, _, _folder) = server(|options| options);
    user(&running, ADA, &[]);
    user(&running, "bob@example.org", &[]);
    let body = json!({ "email": ADA, "password": PASSWORD });
    let long = "x".repeat(1000);
    let first = cookie_of(&post(&running, "auth/session", &[PAGE, ("User-Agent", "Firefox")], &body));
    let second = cookie_of(&post(&running, "auth/session", &[PAGE, ("User-Agent", &long)], &body));
    let program = token(&running, ADA);
    let other = enter(&running, "bob@example.org");
    let path = format!("{USERADM}/settings/sessions");
    let list = |cookie: &str| request(&running, "GET", &path, &[("Cookie", cookie)], b"").json();
    let shown = list(&first);
    assert_eq!(shown.as_array().unwrap().len(), 3, "{shown}");
    assert_eq!((&shown[0]["agent"], &shown[0]["current"]), (&json!("Firefox"), &json!(true)));
    assert_eq!((&shown[0]["from"], &shown[1]["current"]), (&json!("127.0.0.1"), &json!(false)));
    assert!(shown[0]["created_ts"].is_string() && shown[0]["last_used_ts"].is_string(), "{shown}");
    assert_eq!(shown[1]["agent"].as_str().unwrap().len(), 200);
    assert!(!shown.to_string().contains("ey"), "no token is shown");
    let id = shown[1]["id"].as_str().unwrap();
    // Another's is none of one's own.
    let gone = |cookie: &str| from_page(&running, cookie, "DELETE", &format!("{path}/{id}"), "").status;
    assert_eq!((gone(&other), me(&running, &second)), (204, 200));
    assert_eq!((gone(&first), gone(&first), me(&running, &second)), (204, 204, 401));
    assert_eq!((me(&running, &first), me(&running, &other)), (200, 200));
    assert_eq!(list(&first).as_array().unwrap().len(), 2);
    // Another password ends all of them, and none is left in the list.
    let change = json!({ "password": "another one", "current_password": PASSWORD });
    assert_eq!(ask(&running, &program, "PUT", &format!("{USERADM}/users/me"), change).status, 204);
    assert_eq!((me(&running, &first), me(&running, &other)), (401, 200));
    let again = login(&running, &format!("{ADA}:another one")).text();
    assert_eq!(ask(&running, &again, "GET", &path, Value::Null).json().as_array().unwrap().len(), 1);
    assert_eq!(
        manage(&running, "GET", &path, Value::Null).json(),
        json!([]),
        "the management token is no login"
    );
}

#[test]
fn a_personal_token_neither_sees_nor_ends_logins() {
    let (running, _, _folder) = server(|options| options);
    user(&running, ADA, &[]);
    let cookie = enter(&running, ADA);
    let body = json!({ "name": "program" });
    let login = token(&running, ADA);
    let program = ask(&running, &login, "POST", &format!("{USERADM}/settings/tokens"), body).text();
    let path = format!("{USERADM}/settings/sessions");
    let shown = ask(&running, &login, "GET", &path, Value::Null).json();
    let one = format!("{path}/{}", shown[0]["id"].as_str().unwrap());
    assert_eq!(error(&ask(&running, &program, "GET", &path, Value::Null)), 403);
    assert_eq!(error(&ask(&running, &program, "DELETE", &one, Value::Null)), 403);
    assert_eq!(me(&running, &cookie), 200);
    assert_eq!(ask(&running, &login, "DELETE", &one, Value::Null).status, 204);
    assert_eq!(me(&running, &cookie), 401);
}

#[test]
fn the_user_of_the_command_line_has_logins_too() {
    let (running, _, _folder) = server(|options| options.user("admin@example.org", PASSWORD));
    let cookie = enter(&running, "admin@example.org");
    let path = format!("{USERADM}/settings/sessions");
    let shown = request(&running, "GET", &path, &[("Cookie", &cookie)], b"").json();
    assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
    let end = format!("{path}/{}", shown[0]["id"].as_str().unwrap());
    assert_eq!(from_page(&running, &cookie, "DELETE", &end, "").status, 204);
    assert_eq!(me(&running, &cookie), 401);
}

#[test]
fn the_oldest_of_many_logins_ends() {
    let (running, _, _folder) = server(|options| options.user("admin@example.org", PASSWORD));
    let first = enter(&running, "admin@example.org");
    let others: Vec<String> = (0..50).map(|_| enter(&running, "admin@example.org")).collect();
    assert_eq!(me(&running, &first), 401);
    assert!(others.iter().all(|cookie| me(&running, cookie) == 200));
}

#[test]
fn the_page_has_to_wait_after_logins_that_fail() {
    let (running, _, _folder) = server(|options| options.user("admin@example.org", PASSWORD));
    let attempt = |password: &str| {
        post(
            &running,
            "auth/session",
            &[PAGE],
            &json!({ "email": "admin@example.org", "password": password }),
        )
    };
    for _ in 0..5 {
        let answer = attempt("wrong");
        assert_eq!((error(&answer), answer.header("set-cookie")), (401, None));
    }
    // Five are free, and then there is a second to wait, which is over soon on a slow machine: so they come at one time, the right
    // password among them, and by both ways to log in, which count together.
    let by_login = |password: &str| login(&running, &format!("admin@example.org:{password}"));
    let mut rounds = 0;
    let (answer, other) = loop {
        rounds += 1;
        let mut answers = at_once(14, |number| match number {
            0..8 => attempt("wrong"),
            8..11 => attempt(PASSWORD),
            _ => by_login(PASSWORD),
        });
        let mut by_logins = answers.split_off(11).into_iter();
        let mut right = answers.split_off(8).into_iter();
        for answer in answers {
            assert!(matches!(error(&answer), 401 | 429) && answer.header("set-cookie").is_none());
        }
        let has_to_wait = |answer: &Answer| answer.status == 429;
        if let (Some(page), Some(login)) = (right.find(has_to_wait), by_logins.find(has_to_wait)) {
            break (page, login);
        }
        assert!(rounds < 50, "nobody has to wait");
    };
    assert_eq!((answer.header("set-cookie"), error(&other)), (None, 429));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
}

#[test]
fn what_is_no_login_is_400_and_too_much_of_it_413() {
    let (running, _, _folder) = server(|options| options);
    let path = format!("{USERADM}/auth/session");
    for body in ["", "{", "[]", "{\"email\":\"a@b\"}", "{\"email\":1,\"password\":\"x\"}"] {
        assert_eq!(error(&request(&running, "POST", &path, &[PAGE], body.as_bytes())), 400, "{body}");
    }
    let large = format!("{{\"email\":\"{}\",\"password\":\"x\"}}", "a".repeat(40_000));
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        large.len()
    );
    let answer = crate::common::parse(&raw(&running, head.as_bytes())).unwrap();
    assert_eq!(answer.status, 413);
}

/// The token of a link that the server has printed.
fn token_of(link: &str) -> String {
    link.split_once("/#/start/").expect("a link").1.to_owned()
}

fn first(running: &Running, token: &str, email: &str, password: &str) -> Answer {
    let body = json!({ "token": token, "email": email, "password": password });
    post(running, "auth/first-user", &[PAGE], &body)
}

fn has_first(running: &Running) -> bool {
    let answer = request(running, "GET", &format!("{USERADM}/auth/state"), &[], b"");
    assert_eq!(answer.status, 200);
    answer.json()["first_user"].as_bool().unwrap()
}

#[test]
fn the_first_user_is_made_with_the_newest_link_and_is_logged_in() {
    let (running, _, folder) = server(|options| options);
    assert!(has_first(&running));
    assert_eq!(error(&first(&running, "", ADA, PASSWORD)), 403, "nobody has asked for a link");
    let old = token_of(&running.first_user_link().unwrap());
    running.stop();
    let (running, _) = server_in(folder.path(), |options| options);
    let link = running.first_user_link().unwrap();
    assert!(link.starts_with(&format!("{}/#/start/", running.url())), "{link}");
    let token = token_of(&link);
    assert_eq!(token.len(), 64);
    for wrong in ["", "x", &old, &token[1..]] {
        assert_eq!(error(&first(&running, wrong, ADA, PASSWORD)), 403, "{wrong}");
    }
    // What is refused for another reason leaves the link as it is.
    assert_eq!(error(&first(&running, &token, "ada", PASSWORD)), 400);
    assert_eq!(error(&first(&running, &token, ADA, "password")), 422);
    let body = json!({ "token": token, "email": ADA, "password": PASSWORD });
    let foreign = [("Origin", "http://evil.example.org")];
    assert_eq!(error(&post(&running, "auth/first-user", &foreign, &body)), 403);
    assert!(has_first(&running));

    let made = first(&running, &token, ADA, PASSWORD);
    assert_eq!(made.status, 201, "{}", made.text());
    let cookie = cookie_of(&made);
    let shown =
        request(&running, "GET", made.header("location").unwrap(), &[("Cookie", &cookie)], b"").json();
    assert_eq!((&shown["email"], &shown["roles"]), (&json!(ADA), &json!([])), "the first may do everything");
    assert_eq!(login(&running, &format!("{ADA}:{PASSWORD}")).status, 200);
    let log = manage(&running, "GET", "/api/management/v1/auditlogs/logs", Value::Null).json();
    assert_eq!((&log[0]["action"], &log[0]["actor"]["email"]), (&json!("create"), &json!(ADA)), "{log}");
    // It was the only one.
    assert!(!has_first(&running) && running.first_user_link().is_none());
    assert_eq!(error(&first(&running, &token, "eve@example.org", PASSWORD)), 409);
    running.stop();
    let (running, _) = server_in(folder.path(), |options| options);
    assert!(!has_first(&running) && running.first_user_link().is_none());
}

#[test]
fn a_link_is_of_no_use_when_there_is_a_user() {
    let (running, _, _folder) = server(|options| options.public_url("https://fleet.example.org/"));
    let link = running.first_user_link().unwrap();
    assert!(link.starts_with("https://fleet.example.org/#/start/"), "{link}");
    let ada = user(&running, ADA, &[]);
    assert_eq!(error(&first(&running, &token_of(&link), "eve@example.org", PASSWORD)), 409);
    // Nor when that one is gone again.
    assert_eq!(manage(&running, "DELETE", &format!("{USERADM}/users/{ada}"), Value::Null).status, 204);
    assert!(has_first(&running));
    assert_eq!(error(&first(&running, &token_of(&link), "eve@example.org", PASSWORD)), 403);

    let (running, _, _folder) = server(|options| options.user("admin@example.org", PASSWORD));
    assert!(!has_first(&running) && running.first_user_link().is_none());
    assert_eq!(error(&first(&running, "", ADA, PASSWORD)), 409);
}

#[test]
fn the_program_prints_the_link_until_there_is_a_user() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let lines = |count: usize| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--metrics",
            "127.0.0.1:0",
        ]);
        let mut child = command
            .arg("--data")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines: Vec<String> = (0..count).map(|_| out.next().unwrap().unwrap()).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(out.count(), 0, "more than {count} lines");
        lines
    };
    let first = lines(3);
    let url = first[0].strip_prefix("listening on ").unwrap();
    let link = first[2].strip_prefix("there is no user yet; make the first one at ").unwrap();
    assert!(link.starts_with(&format!("{url}/#/start/")), "{first:?}");
    assert_ne!(lines(3)[2], first[2], "a new start has a new link");
    let (running, _) = server_in(folder.path(), |options| options);
    user(&running, ADA, &[]);
    running.stop();
    lines(2);
}

#[test]
fn what_a_login_is_one_process_knows_of_the_others_at_once() {
    let Some(url) = crate::common::postgres::database() else { return };
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [one, two] = [0, 1].map(|at: usize| {
        let database = server_core::DatabaseOptions::new(&url);
        server_in(folders[at].path(), |options| options.database(database)).0
    });
    let link = one.first_user_link().unwrap();
    until(|| first(&two, &token_of(&link), ADA, PASSWORD).status == 201);
    until(|| !has_first(&one));
    for _ in 0..10 {
        let cookie = enter(&one, ADA);
        assert_eq!(me(&two, &cookie), 200, "it was not heard of, and is looked for");
    }
    // Work on a device ends with the login, wherever that is ended.
    let cookie = enter(&one, ADA);
    let (device, id) = accepted(&one, "a");
    let of_device = "/api/devices/v1/deviceconnect/connect";
    let _connected = FrameStream::open(two.url(), of_device, &device.token).unwrap();
    let token = cookie.strip_prefix("rust_ota_session=").unwrap();
    let person = server_core::client::Management::new(two.url(), token);
    let mut work = soon(|| person.connect(&id).ok());
    let session = format!("{USERADM}/auth/session");
    assert_eq!(from_page(&one, &cookie, "DELETE", &session, "").status, 204);
    assert_eq!(crate::connect::closed(&mut work), 1008);
    until(|| me(&two, &cookie) == 401);
}
