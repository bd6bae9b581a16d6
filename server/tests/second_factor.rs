//! The second factor of a login: turned on, needed, taken once, and given up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use server_core::Running;

use crate::common::{Answer, error, login, manage, request, server};
use crate::roles::managers;
use crate::users::{PASSWORD, USERADM, ask, at_once, token, user};

const ADA: &str = "ada@example.org";

fn factor() -> String {
    format!("{USERADM}/settings/me/2fa")
}

/// What an application shows: the code of a step, made of the secret as it is typed (RFC 6238).
fn code(secret: &str, step: u64) -> String {
    let digits = secret.bytes().map(|letter| match letter {
        b'A'..=b'Z' => letter - b'A',
        _ => letter - b'2' + 26,
    });
    let bits: Vec<u8> = digits.flat_map(|five| (0..5).rev().map(move |at| (five >> at) & 1)).collect();
    let key: Vec<u8> =
        bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| (byte << 1) | bit)).collect();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key), &step.to_be_bytes());
    let at = usize::from(tag.as_ref()[19] & 15);
    let number = u32::from_be_bytes(tag.as_ref()[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

/// What turns it on.
fn with_password(code: &str) -> Value {
    json!({ "token2fa": code, "current_password": PASSWORD })
}

/// Turns it on with the code of now. Gives the next one, which is good for as long: a test may take half a minute.
#[track_caller]
fn turn_on(running: &Running, token: &str) -> (String, String) {
    let offered = ask(running, token, "POST", &factor(), Value::Null);
    assert_eq!(offered.status, 200, "{}", offered.text());
    let secret = offered.json()["secret"].as_str().unwrap().to_owned();
    let step = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 30;
    let now = code(&secret, step);
    let on = ask(running, token, "PUT", &factor(), with_password(&now));
    assert_eq!(on.status, 204, "{}", on.text());
    (now, code(&secret, step + 1))
}

fn enter(running: &Running, password: &str, code: Option<&str>) -> Answer {
    let body = json!({ "email": ADA, "password": password, "token2fa": code });
    let path = format!("{USERADM}/auth/session");
    request(running, "POST", &path, &[("X-Requested-With", "rust-ota")], body.to_string().as_bytes())
}

/// The answer to a login whose password was right: that a code is needed, and nothing to go on with.
#[track_caller]
fn needs_code(answer: &Answer) {
    assert_eq!((error(answer), &answer.json()["second_factor"]), (401, &json!(true)));
    assert_eq!(answer.header("set-cookie"), None);
}

#[test]
fn a_login_needs_a_code_once_the_person_has_shown_to_have_it() {
    let (running, _, _folder) = server(|options| options);
    user(&running, ADA, &[]);
    let ada = token(&running, ADA);
    let offered = ask(&running, &ada, "POST", &factor(), Value::Null).json();
    let secret = offered["secret"].as_str().unwrap();
    let uri = format!("otpauth://totp/rust-ota:ada%40example.org?secret={secret}&issuer=rust-ota");
    assert_eq!((secret.len(), offered["uri"].as_str()), (32, Some(&*uri)));
    let put = |code: &str| ask(&running, &ada, "PUT", &factor(), with_password(code));
    assert_eq!(error(&put("x")), 422);
    let me = || ask(&running, &ada, "GET", &format!("{USERADM}/users/me"), Value::Null).json();
    let enabled = || ask(&running, &ada, "GET", &factor(), Value::Null).json();
    assert_eq!((me().get("second_factor"), enabled()), (None, json!({ "enabled": false })));
    assert_eq!(enter(&running, PASSWORD, None).status, 204, "it is not on");

    let (used, next) = turn_on(&running, &ada);
    assert_eq!((&me()["second_factor"], enabled()), (&json!(true), json!({ "enabled": true })));
    assert!(!me().to_string().contains(secret), "the secret is shown once");
    assert_eq!(error(&put(&next)), 409);
    assert_eq!(error(&ask(&running, &ada, "POST", &factor(), Value::Null)), 409);
    let needed = enter(&running, PASSWORD, None);
    needs_code(&needed);
    assert_eq!(needed.json()["error"], "a second factor is needed");
    needs_code(&enter(&running, PASSWORD, Some("")));
    needs_code(&enter(&running, PASSWORD, Some("x")));
    needs_code(&enter(&running, PASSWORD, Some(&used)));
    // Who does not know the password hears nothing of it.
    let wrong = enter(&running, "wrong", Some(&next));
    assert_eq!((error(&wrong), wrong.json().get("second_factor")), (401, None));
    let entered = enter(&running, PASSWORD, Some(&format!("{} {}", &next[..3], &next[3..])));
    assert_eq!(entered.status, 204, "{}", entered.text());
    needs_code(&enter(&running, PASSWORD, Some(&next)));

    let off = |password: &str| ask(&running, &ada, "DELETE", &factor(), json!({ "password": password }));
    assert_eq!(error(&off("wrong")), 422);
    needs_code(&enter(&running, PASSWORD, None));
    assert_eq!(off(PASSWORD).status, 204);
    assert_eq!(enter(&running, PASSWORD, None).status, 204);
    assert_eq!(error(&put(&next)), 409, "there is none any more");
}

#[test]
fn it_is_turned_on_with_the_password_only() {
    let (running, _, _folder) = server(|options| options);
    user(&running, ADA, &[]);
    let ada = token(&running, ADA);
    let offered = ask(&running, &ada, "POST", &factor(), Value::Null).json();
    let step = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 30;
    let code = code(offered["secret"].as_str().unwrap(), step);
    let put = |body: Value| ask(&running, &ada, "PUT", &factor(), body);
    assert_eq!(error(&put(json!({ "token2fa": code }))), 400);
    let wrong = put(json!({ "token2fa": code, "current_password": "wrong" }));
    assert_eq!((error(&wrong), wrong.json()["error"].as_str()), (422, Some("current password mismatch")));
    assert_eq!(enter(&running, PASSWORD, None).status, 204, "it is not on");
    assert_eq!(put(with_password(&code)).status, 204);
    needs_code(&enter(&running, PASSWORD, None));
    // Each wrong password is a failed login, whatever it was for.
    let tried = at_once(8, |number| match number % 2 {
        0 => error(&ask(&running, &ada, "DELETE", &factor(), json!({ "password": "wrong" }))),
        _ => error(&put(json!({ "token2fa": code, "current_password": "wrong" }))),
    });
    assert!(tried.contains(&429) && tried.contains(&422), "{tried:?}");
    let on = ask(&running, &ada, "GET", &factor(), Value::Null).json();
    assert_eq!(on, json!({ "enabled": true }));
}

#[test]
fn programs_log_in_with_a_code_in_the_body() {
    let (running, _, _folder) = server(|options| options);
    user(&running, ADA, &[]);
    let (_, next) = turn_on(&running, &token(&running, ADA));
    needs_code(&login(&running, &format!("{ADA}:{PASSWORD}")));
    let basic = format!("Basic {}", STANDARD.encode(format!("{ADA}:{PASSWORD}")));
    let path = format!("{USERADM}/auth/login");
    let post = |body: &str| request(&running, "POST", &path, &[("Authorization", &basic)], body.as_bytes());
    assert_eq!(error(&post("{")), 400);
    needs_code(&post("{\"token2fa\":\"\"}"));
    let body = json!({ "token2fa": next, "no_expiry": true }).to_string();
    let given = post(&body);
    assert_eq!(given.status, 200, "{}", given.text());
    assert_eq!(ask(&running, &given.text(), "GET", &format!("{USERADM}/users/me"), Value::Null).status, 200);
    needs_code(&post(&body));
}

#[test]
fn who_guesses_codes_has_to_wait() {
    let (running, _, _folder) = server(|options| options);
    user(&running, ADA, &[]);
    turn_on(&running, &token(&running, ADA));
    needs_code(&enter(&running, PASSWORD, Some("x")));
    let tried = at_once(12, |_| enter(&running, PASSWORD, Some("x")));
    let (waits, others): (Vec<_>, Vec<_>) = tried.iter().partition(|answer| answer.status == 429);
    others.into_iter().for_each(needs_code);
    let answer = waits.first().expect("one that has to wait");
    assert!(answer.header("retry-after").is_some() && answer.header("set-cookie").is_none());
}

#[test]
fn only_a_login_of_a_stored_user_has_one() {
    let (running, _, _folder) = server(|options| options.user("admin@example.org", PASSWORD));
    user(&running, ADA, &[]);
    let (admin, ada) = (token(&running, "admin@example.org"), token(&running, ADA));
    let body = json!({ "name": "program" });
    let program = ask(&running, &ada, "POST", &format!("{USERADM}/settings/tokens"), body).text();
    for (token, status) in [(&*program, 403), (&*admin, 422), (running.management_token(), 422)] {
        let state = ask(&running, token, "GET", &factor(), Value::Null);
        assert_eq!((state.status, state.json()), (200, json!({ "enabled": false })));
        for (method, body) in [
            ("POST", Value::Null),
            ("PUT", with_password("000000")),
            ("DELETE", json!({ "password": PASSWORD })),
        ] {
            assert_eq!(error(&ask(&running, token, method, &factor(), body)), status, "{method}");
        }
    }
    // A program goes on without a code.
    turn_on(&running, &ada);
    assert_eq!(ask(&running, &program, "GET", &format!("{USERADM}/users/me"), Value::Null).status, 200);
}

#[test]
fn whoever_manages_people_turns_it_off_for_who_has_lost_it() {
    let (running, _, _folder) = server(|options| options);
    let ada = user(&running, ADA, &[]);
    managers(&running, &["ManageUsers", "ReadReleases", "ManageReleases", "UploadArtifacts"]);
    let bob = user(&running, "bob@example.org", &["people"]);
    let eve = user(&running, "eve@example.org", &["RBAC_ROLE_CI"]);
    let [ada_token, bob_token, eve_token] =
        [ADA, "bob@example.org", "eve@example.org"].map(|email| token(&running, email));
    for token in [&ada_token, &bob_token, &eve_token] {
        turn_on(&running, token);
    }
    let recover = |token: &str, id: &str| {
        ask(&running, token, "DELETE", &format!("{USERADM}/users/{id}/2fa"), Value::Null)
    };
    for (whose, token, id, status) in [
        ("a person without rights", &eve_token, &ada, 403),
        ("somebody who may everything", &bob_token, &ada, 403),
        ("oneself", &bob_token, &bob, 403),
        ("oneself, who may everything", &ada_token, &ada, 403),
        ("nobody", &bob_token, &"none".to_owned(), 404),
    ] {
        assert_eq!(error(&recover(token, id)), status, "{whose}");
    }
    needs_code(&enter(&running, PASSWORD, None));
    assert_eq!(recover(&bob_token, &eve).status, 204);
    assert_eq!(login(&running, &format!("eve@example.org:{PASSWORD}")).status, 200);
    assert_eq!(recover(running.management_token(), &ada).status, 204);
    assert_eq!(enter(&running, PASSWORD, None).status, 204);
    let log = manage(&running, "GET", "/api/management/v1/auditlogs/logs", Value::Null).json();
    let entry = &log[0];
    assert_eq!((&entry["action"], &entry["object"]["id"]), (&json!("update"), &json!(ada)), "{entry}");
    assert_eq!(entry["change"], "the second factor is off");
    let who: Vec<&Value> =
        log.as_array().unwrap().iter().filter(|one| one["change"] == "the second factor is on").collect();
    assert_eq!(who.len(), 3, "{log}");
}
