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
    for _ in 0..5 {
        assert_eq!(error(&login(&running, "admin@example.org:wrong")), 401);
    }
    let answer = login(&running, &format!("admin@example.org:{PASSWORD}"));
    assert_eq!(error(&answer), 429);
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
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
