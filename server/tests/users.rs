//! People: users, logins, settings and personal tokens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common::{Answer, error, login, manage, request, server, server_in};
use serde_json::{Value, json};
use server_core::Running;

pub(crate) const USERADM: &str = "/api/management/v1/useradm";
pub(crate) const PASSWORD: &str = "correct horse";

/// Asks as somebody.
pub(crate) fn ask(running: &Running, token: &str, method: &str, path: &str, body: Value) -> Answer {
    let token = format!("Bearer {token}");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request(running, method, path, &[("Authorization", &token)], body.as_bytes())
}

/// Makes a user; gives the id.
#[track_caller]
pub(crate) fn user(running: &Running, email: &str, roles: &[&str]) -> String {
    let body = json!({ "email": email, "password": PASSWORD, "roles": roles });
    let answer = manage(running, "POST", &format!("{USERADM}/users"), body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.header("location").unwrap().rsplit('/').next().unwrap().to_owned()
}

/// A user's token.
#[track_caller]
pub(crate) fn token(running: &Running, email: &str) -> String {
    let answer = login(running, &format!("{email}:{PASSWORD}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

#[test]
fn a_user_is_made_logs_in_is_changed_and_goes() {
    let (running, _, folder) = server(|options| options);
    let users = format!("{USERADM}/users");
    let ada = user(&running, "Ada@Example.org", &[]);
    for (body, status) in [
        (json!({ "email": "ada@example.org", "password": PASSWORD }), 422),
        (json!({ "email": "bob@example.org", "password": "asdf" }), 422),
        (json!({ "email": "bob@example.org", "password": "Password1" }), 422),
        (json!({ "email": "bob@example.org", "password": "BOB@example.org" }), 422),
        (json!({ "email": "bob", "password": PASSWORD }), 400),
        (json!({ "password": PASSWORD }), 400),
        (json!({ "email": "bob@example.org", "password": PASSWORD, "roles": ["none"] }), 422),
    ] {
        assert_eq!(error(&manage(&running, "POST", &users, body.clone())), status, "{body}");
    }
    let first = token(&running, "ada@example.org");
    let me = ask(&running, &first, "GET", &format!("{users}/me"), Value::Null).json();
    assert_eq!((me["id"].as_str(), me["email"].as_str()), (Some(&*ada), Some("ada@example.org")));
    assert!(me["login_ts"].is_string() && me.get("password").is_none(), "{me}");
    let found = |query: &str| manage(&running, "GET", &format!("{users}?{query}"), Value::Null).json();
    assert_eq!(found("email=ada@example.org")[0]["id"].as_str(), Some(&*ada));
    assert_eq!(found("email=other@example.org"), json!([]));
    assert_eq!(found("created_after=4000000000"), json!([]));

    // Whoever has the token has not the password.
    let path = format!("{users}/{ada}");
    let change = |body: Value| ask(&running, &first, "PUT", &path, body);
    assert_eq!(error(&change(json!({ "password": "another one" }))), 422);
    assert_eq!(error(&change(json!({ "password": "another one", "current_password": "wrong" }))), 422);
    assert_eq!(error(&change(json!({ "password": "ada@example.org", "current_password": PASSWORD }))), 422);
    assert_eq!(error(&change(json!({ "password": "sunshine", "current_password": PASSWORD }))), 422);
    assert_eq!(change(json!({ "password": "another one", "current_password": PASSWORD })).status, 204);
    assert_eq!(error(&ask(&running, &first, "GET", &users, Value::Null)), 401);
    assert_eq!(error(&login(&running, &format!("ada@example.org:{PASSWORD}"))), 401);
    assert_eq!(login(&running, "ada@example.org:another one").status, 200);

    // It is all still there after a restart.
    running.stop();
    let (running, _) = server_in(folder.path(), |options| options);
    let again = login(&running, "ada@example.org:another one").text();
    assert_eq!(ask(&running, &again, "GET", &users, Value::Null).status, 200);
    assert_eq!(ask(&running, &again, "POST", &format!("{USERADM}/auth/logout"), Value::Null).status, 202);
    assert_eq!(error(&ask(&running, &again, "GET", &users, Value::Null)), 401);
    let last = login(&running, "ada@example.org:another one").text();
    for _ in 0..2 {
        assert_eq!(manage(&running, "DELETE", &path, Value::Null).status, 204);
    }
    assert_eq!(error(&ask(&running, &last, "GET", &users, Value::Null)), 401);
    assert_eq!(error(&manage(&running, "GET", &path, Value::Null)), 404);
    assert_eq!(error(&manage(&running, "PUT", &path, json!({ "email": "x@y" }))), 404);
}

#[test]
fn the_user_that_the_server_is_started_with_needs_no_record() {
    let (running, _, _folder) = server(|options| options.user("admin@example.org", PASSWORD));
    let token = token(&running, "admin@example.org");
    let me = ask(&running, &token, "GET", &format!("{USERADM}/users/me"), Value::Null).json();
    assert_eq!(me["email"], "admin@example.org");
    let users = ask(&running, &token, "GET", &format!("{USERADM}/users"), Value::Null).json();
    assert_eq!(users, json!([me]));
    let body = json!({ "email": "Admin@example.org", "password": PASSWORD });
    assert_eq!(error(&ask(&running, &token, "POST", &format!("{USERADM}/users"), body)), 422);
    let path = format!("{USERADM}/users/{}", me["id"].as_str().unwrap());
    for (method, body) in [("PUT", json!({ "email": "b@example.org" })), ("DELETE", Value::Null)] {
        assert_eq!(error(&ask(&running, &token, method, &path, body)), 422, "{method}");
    }
}

#[test]
fn logins_that_fail_again_and_again_have_to_wait() {
    let (running, _, _folder) = server(|options| options.user("admin@example.org", PASSWORD));
    assert_eq!(error(&login(&running, "admin@example.org:wrong")), 401);
    let tried = at_once(8, |_| login(&running, "admin@example.org:wrong"));
    let answer = tried.into_iter().find(|answer| error(answer) == 429).expect("one that has to wait");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
}

#[test]
fn a_wrong_password_is_a_failed_login_of_its_account_also_where_it_is_asked_for_again() {
    let (running, _, _folder) = server(|options| options);
    for name in ["ada@example.org", "bob@example.org"] {
        user(&running, name, &[]);
    }
    let ada = token(&running, "ada@example.org");
    let change = |current: &str| {
        let body = json!({ "password": "another one", "current_password": current });
        ask(&running, &ada, "PUT", &format!("{USERADM}/users/me"), body)
    };
    assert_eq!(error(&change("wrong")), 422);
    // Five are free, of either kind: together they would be ten if each had five of its own.
    let tried = at_once(12, |number| match number % 2 {
        0 => error(&change("wrong")),
        _ => error(&login(&running, "ada@example.org:wrong")),
    });
    let looked_at = tried.iter().filter(|status| matches!(status, 401 | 422)).count();
    let refused = tried.iter().filter(|status| **status == 429).count();
    assert!(looked_at < 9 && looked_at + refused == 12, "{tried:?}");
    assert_eq!(login(&running, &format!("bob@example.org:{PASSWORD}")).status, 200, "it is not his fault");
}

#[test]
fn who_guesses_for_others_is_not_helped_by_an_account_of_their_own() {
    let (running, _, _folder) = server(|options| options.user("own@example.org", PASSWORD));
    let own = || login(&running, &format!("own@example.org:{PASSWORD}"));
    let guess = |name: usize| error(&login(&running, &format!("{name}@example.org:wrong")));
    for name in 0..4 {
        assert_eq!(guess(name), 401);
        assert_eq!(own().status, 200);
    }
    // One is free still, and one more comes when the machine is slow; it would be five again.
    let tried = at_once(8, guess);
    let looked_at = tried.iter().filter(|status| **status == 401).count();
    assert!(looked_at < 4, "{tried:?}");
}

/// What comes of so many requests that are under way at one time. Failed logins count when they begin.
pub(crate) fn at_once<T: Send>(count: usize, one: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let one = &one;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..count).map(|number| scope.spawn(move || one(number))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// Sends a request up to its body; gives how to send that and read the answer. The server waits for the body then.
fn begun(
    running: &Running,
    token: &str,
    request: &str,
    headers: &str,
    body: Vec<u8>,
) -> impl FnOnce() -> Answer + use<> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", running.port())).unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{headers}\
         Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    move || {
        stream.write_all(&body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        crate::common::parse(&answer).expect("an answer")
    }
}

#[test]
fn what_was_begun_with_a_right_that_is_gone_when_it_has_come_is_not_done() {
    let (running, _, _folder) = server(|options| options);
    let bob = user(&running, "bob@example.org", &["RBAC_ROLE_CI"]);
    let login = token(&running, "bob@example.org");
    let personal = || {
        let body = json!({ "name": "program" });
        ask(&running, &login, "POST", &format!("{USERADM}/settings/tokens"), body).text()
    };
    let revoke = || {
        let path = format!("{USERADM}/settings/tokens");
        let id =
            ask(&running, &login, "GET", &path, Value::Null).json()[0]["id"].as_str().unwrap().to_owned();
        assert_eq!(ask(&running, &login, "DELETE", &format!("{path}/{id}"), Value::Null).status, 204);
    };
    let own = format!("{USERADM}/settings/me");
    let finish = begun(&running, &personal(), &format!("POST {own}"), "", b"{\"a\":1}".to_vec());
    revoke();
    assert_eq!(error(&finish()), 401);
    assert_eq!(ask(&running, &login, "GET", &own, Value::Null).json(), json!({}));

    let artifacts = "/api/management/v1/deployments/artifacts";
    let file = std::fs::read(crate::common::artifact("release-1", "testdev").path()).unwrap();
    let part = "--x\r\nContent-Disposition: form-data; name=\"artifact\"; filename=\"a\"\r\n\r\n";
    let form = || [part.as_bytes(), &file, b"\r\n--x--\r\n"].concat();
    let kind = "Content-Type: multipart/form-data; boundary=x\r\n";
    let upload = |token: &str| begun(&running, token, &format!("POST {artifacts}"), kind, form());
    let finish = upload(&personal());
    revoke();
    assert_eq!(error(&finish()), 401);
    let (finish, in_time) = (upload(&login), upload(&login));
    assert_eq!(in_time().status, 201);
    let listed = manage(&running, "GET", artifacts, Value::Null).json();
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(manage(&running, "DELETE", &format!("{artifacts}/{id}"), Value::Null).status, 204);
    let note = "/api/management/v2/deployments/deployments/releases/release-1/tags";
    let tag = begun(&running, &login, &format!("PUT {note}"), "", b"[\"x\"]".to_vec());
    let body = json!({ "roles": ["RBAC_ROLE_OBSERVER"] });
    assert_eq!(manage(&running, "PUT", &format!("{USERADM}/users/{bob}"), body).status, 204);
    assert_eq!((error(&finish()), error(&tag())), (403, 403));
    assert_eq!(manage(&running, "GET", artifacts, Value::Null).json(), json!([]));
}

#[test]
fn settings_are_replaced_by_who_has_seen_the_last_ones() {
    let (running, _, _folder) = server(|options| options.user("admin@example.org", PASSWORD));
    let token = token(&running, "admin@example.org");
    for path in ["settings", "settings/me"] {
        let path = format!("{USERADM}/{path}");
        let post = |body: &str, tag: Option<&str>| {
            let bearer = format!("Bearer {token}");
            let mut headers = vec![("Authorization", bearer.as_str())];
            headers.extend(tag.map(|tag| ("If-Match", tag)));
            request(&running, "POST", &path, &headers, body.as_bytes()).status
        };
        let first = ask(&running, &token, "GET", &path, Value::Null);
        assert_eq!((first.status, first.json()), (200, json!({})));
        let tag = first.header("etag").unwrap();
        assert_eq!(post("{\"a\":1}", Some(tag)), 201);
        assert_eq!(post("{\"a\":2}", Some(tag)), 412);
        assert_eq!(post("{\"a\":", None), 400);
        assert_eq!(post("[]", None), 400);
        let second = ask(&running, &token, "GET", &path, Value::Null);
        assert_eq!(second.json(), json!({ "a": 1 }));
        assert_ne!(second.header("etag"), Some(tag));
    }
    // What the operator keeps is not what this person keeps.
    let other = manage(&running, "GET", &format!("{USERADM}/settings/me"), Value::Null);
    assert_eq!(other.json(), json!({}));
}

#[test]
fn a_personal_token_works_until_it_is_taken_away_or_the_password_changes() {
    let (running, _, _folder) = server(|options| options);
    let ada = user(&running, "ada@example.org", &[]);
    let login = token(&running, "ada@example.org");
    let path = format!("{USERADM}/settings/tokens");
    let make = |name: &str| ask(&running, &login, "POST", &path, json!({ "name": name, "expires_in": 3600 }));
    let first = make("first");
    assert_eq!(first.status, 200);
    let first = first.text();
    assert_eq!(error(&make("first")), 409);
    assert_eq!(
        ask(&running, &first, "GET", &format!("{USERADM}/users/me"), Value::Null).json()["id"],
        json!(ada)
    );
    let listed = ask(&running, &login, "GET", &path, Value::Null).json();
    assert_eq!(listed[0]["name"], "first");
    assert!(listed[0]["last_used"].is_string() && listed[0]["expiration_date"].is_string(), "{listed}");
    assert!(!listed.to_string().contains(&first));
    // A stolen one cannot make itself immortal.
    assert_eq!(error(&ask(&running, &first, "POST", &path, json!({ "name": "more" }))), 403);
    for number in 1..10 {
        assert_eq!(make(&number.to_string()).status, 200);
    }
    assert_eq!(error(&make("eleventh")), 422);
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(ask(&running, &login, "DELETE", &format!("{path}/{id}"), Value::Null).status, 204);
    assert_eq!(error(&ask(&running, &first, "GET", &path, Value::Null)), 401);
    let last = make("last").text();
    assert_eq!(ask(&running, &last, "GET", &path, Value::Null).status, 200);
    let change = json!({ "password": "another one" });
    assert_eq!(manage(&running, "PUT", &format!("{USERADM}/users/{ada}"), change).status, 204);
    assert_eq!(error(&ask(&running, &last, "GET", &path, Value::Null)), 401);
    assert_eq!(error(&manage(&running, "POST", &path, json!({ "name": "x" }))), 422);
}
