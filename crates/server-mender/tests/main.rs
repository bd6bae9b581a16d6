//! The device API against the server model and against scripted answers.

// A broken assumption of a test stops it, also in what several tests share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client_core::clock::Clock;
use client_core::deploy::DeploymentId;
use client_core::server::{
    Attribute, AttributeValue, Method, Purpose, ReportAnswer, Request, ServerError, UpdateServer,
};
use server_mender::{Api, Credentials, CredentialsError, DeploymentStatus, Grant, Settings, TokenWatcher};
use testkit::clock::VirtualClock;
use testkit::json::Json;
use testkit::server::{Endpoint, Failure, Matcher, SERVER, ServerModel, TestCredentials};
use testkit::transport::{Reply, ScriptedTransport, Sent};

const TOKEN: &str = "dG9r.c2VjcmV0.c2ln";
const AUTH: &str = "/api/devices/v1/authentication/auth_requests";

fn d1() -> DeploymentId {
    DeploymentId::remembered("d1")
}

fn provides() -> BTreeMap<String, String> {
    let pairs = [("device_type", "testbox"), ("artifact_name", "release-1"), ("rootfs-image.version", "1")];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn one(name: &str, value: &str) -> Attribute {
    Attribute { name: name.into(), value: AttributeValue::One(value.into()) }
}

fn settings(servers: &[&str]) -> Settings {
    let servers = servers.iter().map(|server| (*server).to_owned()).collect();
    Settings { servers, ..Settings::default() }
}

fn api_of(model: &ServerModel, clock: &VirtualClock, servers: &[&str]) -> Api {
    Api::new(model.transport(), Box::new(TestCredentials::default()), clock.shared(), settings(servers))
}

fn scripted(transport: &ScriptedTransport, clock: &VirtualClock) -> Api {
    Api::new(transport.boxed(), Box::new(TestCredentials::default()), clock.shared(), settings(&[SERVER]))
}

#[test]
fn a_whole_deployment_is_recorded_by_the_server() {
    let (model, clock) = (ServerModel::new(), VirtualClock::new(1));
    model.deploy("d1", "release-2", "testbox", b"artifact");
    let mut api = api_of(&model, &clock, &["server.test/"]);
    assert!(!api.is_authorized());
    api.send_inventory(&[one("b", "2"), one("a", "1")]).unwrap();
    assert_eq!(model.inventory().unwrap(), r#"[{"name":"a","value":"1"},{"name":"b","value":"2"}]"#);
    let offer = api.next_deployment(&provides()).unwrap().unwrap();
    assert_eq!((offer.id.as_str(), offer.artifact_name.as_deref()), ("d1", Some("release-2")));
    assert_eq!(offer.device_types, ["testbox"]);
    for status in [DeploymentStatus::Downloading, DeploymentStatus::Installing, DeploymentStatus::Failure] {
        assert_eq!(api.report_status(&d1(), status, None).unwrap(), ReportAnswer::Accepted);
    }
    let log = br#"{"timestamp":"2026-11-22T19:04:36Z","level":"info","message":"m"}"#;
    assert_eq!(api.upload_log(&d1(), log).unwrap(), ReportAnswer::Accepted);
    assert_eq!(model.statuses("d1"), ["downloading", "installing", "failure"]);
    assert_eq!(model.logs("d1").len(), 1);
    assert_eq!(api.next_deployment(&provides()).unwrap(), None);
    assert_eq!(model.tokens_given(), 1);
}

/// The calls that need a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Next,
    Report,
    Log,
    Inventory,
}

const CALLS: [Call; 4] = [Call::Next, Call::Report, Call::Log, Call::Inventory];

/// What a call comes to, in a word.
fn outcome(api: &mut Api, call: Call) -> Result<String, ServerError> {
    match call {
        Call::Next => api
            .next_deployment(&provides())
            .map(|offer| format!("{:?}", offer.map(|offer| offer.id.to_string()))),
        Call::Report => {
            api.report_status(&d1(), DeploymentStatus::Success, None).map(|answer| format!("{answer:?}"))
        }
        Call::Log => api.upload_log(&d1(), b"{}").map(|answer| format!("{answer:?}")),
        Call::Inventory => api.send_inventory(&[one("a", "1")]).map(|()| "sent".to_owned()),
    }
}

fn word(result: &Result<String, ServerError>) -> String {
    match result {
        Ok(word) => word.clone(),
        Err(ServerError::Status { status, .. }) => format!("status {status}"),
        Err(ServerError::Malformed { .. }) => "malformed".to_owned(),
        Err(ServerError::Unauthorized { .. }) => "unauthorized".to_owned(),
        Err(ServerError::Transport { .. }) => "transport".to_owned(),
        Err(other) => other.to_string(),
    }
}

/// Answers authentication with a token and everything else with `reply`.
fn after_auth(reply: Reply) -> ScriptedTransport {
    ScriptedTransport::answering(
        move |sent| {
            if sent.path() == AUTH { Reply::new(200, TOKEN) } else { reply.clone() }
        },
    )
}

fn offer_reply() -> Reply {
    Reply::new(200, r#"{"id":"d1","artifact":{"source":{"uri":"https://storage.test/a"}}}"#)
}

#[test]
fn every_status_of_every_call_has_a_meaning_and_none_is_a_loop() {
    for call in CALLS {
        for status in 100..600 {
            let reply = if call == Call::Next && status == 200 {
                offer_reply()
            } else {
                Reply::new(status, r#"{"error":"because","request_id":"1"}"#)
            };
            let (transport, clock) = (after_auth(reply), VirtualClock::new(1));
            let result = outcome(&mut scripted(&transport, &clock), call);
            let expected = match (call, status) {
                (_, 401) => "unauthorized".to_owned(),
                (Call::Next, 200) => "Some(\"d1\")".to_owned(),
                (Call::Next, 204) => "None".to_owned(),
                (Call::Report | Call::Log, 200 | 204) => "Accepted".to_owned(),
                (Call::Report | Call::Log, 409) => "Aborted".to_owned(),
                (Call::Report | Call::Log, 400 | 404 | 413) => "Refused".to_owned(),
                (Call::Inventory, 200 | 204) => "sent".to_owned(),
                _ => format!("status {status}"),
            };
            assert_eq!(word(&result), expected, "{call:?}");
            let sent = transport.take_sent();
            let logins = sent.iter().filter(|sent| sent.path() == AUTH).count();
            assert_eq!(logins, if matches!(status, 401 | 403) { 2 } else { 1 }, "{call:?} {status}");
            let most = match (call, status) {
                (Call::Next, 404 | 405) => 3,
                (Call::Inventory, 405) | (_, 401 | 403) => 2,
                _ => 1,
            };
            assert_eq!(sent.len() - logins, most, "{call:?} {status}");
            assert!(clock.take_pauses().is_empty(), "a call does not wait");
        }
    }
}

#[test]
fn every_status_of_authentication_has_a_meaning() {
    for status in 100..600 {
        let transport = ScriptedTransport::list([Reply::new(status, TOKEN)]);
        let mut api = scripted(&transport, &VirtualClock::new(1));
        let result = api.authenticate().map(|()| "in".to_owned());
        let expected = match status {
            200 => "in".to_owned(),
            401 => "unauthorized".to_owned(),
            _ => format!("status {status}"),
        };
        assert_eq!(word(&result), expected);
        assert_eq!(api.is_authorized(), status == 200);
    }
}

#[test]
fn an_answer_that_is_no_token_is_refused() {
    let long = format!("a.b.{}", "c".repeat(16 * 1024));
    for body in ["", "{}", "<html>Pay here</html>", "a.b", "a.b.c.d", "a b.c.d", &long] {
        let transport = ScriptedTransport::list([Reply::new(200, body)]);
        let mut api = scripted(&transport, &VirtualClock::new(1));
        assert_eq!(word(&api.authenticate().map(|()| String::new())), "malformed", "{body}");
        assert!(!api.is_authorized());
    }
}

#[test]
fn a_captive_portal_takes_no_report_and_orders_nothing() {
    for call in CALLS {
        let (model, clock) = (ServerModel::new(), VirtualClock::new(1));
        let mut api = api_of(&model, &clock, &[SERVER]);
        api.authenticate().unwrap();
        model.fail_next(Matcher::Any, Failure::CaptivePortal);
        let error = outcome(&mut api, call).unwrap_err();
        assert!(error.to_string().contains("captive portal"), "{error}");
        let elsewhere = Reply::new(302, "").header("location", "https://portal.test/login");
        let error = outcome(&mut scripted(&after_auth(elsewhere), &clock), call).unwrap_err();
        assert!(error.to_string().contains("captive portal"), "{error}");
    }
}

#[test]
fn answers_that_are_too_long_cut_or_slow_are_errors() {
    let clock = VirtualClock::new(1);
    let check = |reply: Reply, expected: &str| {
        let transport = after_auth(reply).with_clock(&clock);
        assert_eq!(word(&outcome(&mut scripted(&transport, &clock), Call::Next)), expected);
    };
    check(Reply::new(200, vec![b' '; 1024 * 1024 + 1]), "malformed");
    check(Reply::new(500, vec![b' '; 1024 * 1024 + 1]), "status 500");
    check(offer_reply().breaking_after(10), "transport");
    check(offer_reply().ending_after(10), "malformed");
    check(offer_reply().slowly(Duration::from_secs(60), 1), "transport");
    check(offer_reply().header("content-encoding", "gzip"), "malformed");
    check(Reply::new(200, "{"), "malformed");
    check(Reply::new(200, [0xff, 0xfe]), "malformed");
    check(Reply::new(200, "[".repeat(100_000)), "malformed");
    check(Reply::new(500, "explanation").breaking_after(3), "status 500");
}

#[test]
fn a_refused_token_is_replaced_once_and_the_call_repeated_once() {
    for call in CALLS {
        let (model, clock) = (ServerModel::new(), VirtualClock::new(1));
        model.deploy("d1", "release-2", "testbox", b"x");
        let mut api = api_of(&model, &clock, &[SERVER]);
        api.authenticate().unwrap();
        model.revoke_tokens();
        // The log of this test is no log, which is how the model shows that it looked at it.
        outcome(&mut api, call).unwrap();
        assert_eq!(model.tokens_given(), 2);
        assert_eq!(model.take_sent().len(), 4);
        model.revoke_tokens();
        model.set_accepting(false);
        assert_eq!(word(&outcome(&mut api, Call::Report)), "unauthorized");
        assert!(!api.is_authorized());
        assert_eq!(model.take_sent().len(), 2);
    }
}

#[test]
fn a_403_leads_to_a_new_token_every_ten_minutes_at_most() {
    let clock = VirtualClock::new(1);
    let transport = after_auth(Reply::new(403, ""));
    let mut api = scripted(&transport, &clock);
    let requests = |api: &mut Api| {
        assert_eq!(word(&outcome(api, Call::Report)), "status 403");
        transport.take_sent().len()
    };
    assert_eq!(requests(&mut api), 4);
    for _ in 0..5 {
        assert_eq!(requests(&mut api), 1);
    }
    clock.advance(Duration::from_secs(599));
    assert_eq!(requests(&mut api), 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(requests(&mut api), 3);
    assert!(api.is_authorized());
}

#[test]
fn a_403_of_an_old_token_is_overcome() {
    let mut asked = 0;
    let transport = ScriptedTransport::answering(move |sent| {
        if sent.path() == AUTH {
            return Reply::new(200, TOKEN);
        }
        asked += 1;
        Reply::new(if asked == 1 { 403 } else { 204 }, "")
    });
    assert_eq!(word(&outcome(&mut scripted(&transport, &VirtualClock::new(1)), Call::Next)), "None");
}

#[test]
fn only_a_definite_refusal_ends_what_was_granted() {
    let (model, clock) = (ServerModel::new(), VirtualClock::new(1));
    let mut api = api_of(&model, &clock, &[SERVER]);
    api.authenticate().unwrap();
    model.fail_always(Matcher::Any, Failure::NotReached);
    for call in CALLS {
        assert_eq!(word(&outcome(&mut api, call)), "transport");
    }
    assert!(api.is_authorized());
    model.fail_always(Matcher::Any, Failure::Status(403));
    assert_eq!(word(&outcome(&mut api, Call::Next)), "status 403");
    assert!(api.is_authorized(), "an authentication that answers 403 is no definite refusal");
    // The same after a 403 that was worth a try.
    clock.advance(Duration::from_secs(600));
    model.heal();
    model.set_accepting(false);
    model.fail_next(Matcher::Of(Endpoint::Next), Failure::Status(403));
    assert_eq!(word(&outcome(&mut api, Call::Next)), "unauthorized");
    assert!(!api.is_authorized());
    model.set_accepting(true);
    api.authenticate().unwrap();
    model.fail_always(Matcher::Any, Failure::Status(401));
    assert_eq!(word(&outcome(&mut api, Call::Next)), "unauthorized");
    assert!(!api.is_authorized());
}

#[test]
fn each_server_is_asked_the_way_it_answers_and_once_a_day_the_newest_way() {
    let clock = VirtualClock::new(1);
    let check = |v2: bool, v1_post: bool, first: usize| {
        let model = ServerModel::new();
        model.set_variants(v2, v1_post);
        let mut api = api_of(&model, &clock, &[SERVER]);
        api.authenticate().unwrap();
        let mut requests = || {
            model.take_sent();
            assert_eq!(api.next_deployment(&provides()).unwrap(), None);
            model.take_sent().len()
        };
        assert_eq!(requests(), first);
        for _ in 0..23 {
            clock.advance(Duration::from_secs(3600));
            assert_eq!(requests(), 1);
        }
        clock.advance(Duration::from_secs(3600));
        assert_eq!(requests(), first);
        // A server that was replaced by an older one, and by a newer one.
        model.set_variants(false, false);
        assert!(requests() <= 3);
        assert_eq!(requests(), 1);
        model.set_variants(true, true);
        clock.advance(Duration::from_secs(24 * 3600));
        assert_eq!(requests(), 1);
    };
    check(true, true, 1);
    check(false, true, 2);
    check(false, false, 3);
}

#[test]
fn the_next_server_is_used_when_one_is_away_and_the_first_one_again_after_an_hour() {
    let (model, clock) = (ServerModel::new(), VirtualClock::new(1));
    let servers = ["https://a.test", "b.test/", "https://c.test"];
    for host in ["https://a.test", "https://b.test", "https://c.test"] {
        model.add_host(host);
    }
    model.set_reachable("https://a.test", false);
    let mut api = api_of(&model, &clock, &servers);
    api.authenticate().unwrap();
    assert_eq!(api.server(), Some("https://b.test"));
    model.take_sent();
    // Every later call goes there, and so does the next authentication.
    model.revoke_tokens();
    api.next_deployment(&provides()).unwrap();
    assert!(model.take_sent().iter().all(|sent| sent.url.starts_with("https://b.test/")));
    // Calls in a row without an answer: another one.
    model.set_reachable("https://b.test", false);
    for _ in 0..3 {
        assert_eq!(word(&outcome(&mut api, Call::Next)), "transport");
    }
    api.next_deployment(&provides()).unwrap();
    assert_eq!(api.server(), Some("https://c.test"));
    // Where nothing could be reached, the server in use is as good as before.
    for reachable in [false, true] {
        model.set_reachable("https://c.test", reachable);
        model.set_reachable("https://b.test", reachable);
        for _ in 0..if reachable { 0 } else { 5 } {
            assert!(api.next_deployment(&provides()).is_err());
        }
    }
    api.authenticate().unwrap();
    assert_eq!(api.server(), Some("https://c.test"));
    // A new token is a new beginning: one call without an answer is not the fourth.
    model.take_sent();
    model.fail_next(Matcher::Of(Endpoint::Next), Failure::NotReached);
    assert!(api.next_deployment(&provides()).is_err());
    api.next_deployment(&provides()).unwrap();
    assert_eq!(model.take_sent().len(), 2);
    // After the hold-down the first one is tried, and if it is still away everything stays.
    clock.advance(Duration::from_secs(3600));
    model.take_sent();
    api.next_deployment(&provides()).unwrap();
    assert_eq!(api.server(), Some("https://c.test"));
    assert_eq!(model.take_sent().len(), 2);
    model.set_reachable("https://a.test", true);
    api.next_deployment(&provides()).unwrap();
    assert_eq!(api.server(), Some("https://c.test"));
    clock.advance(Duration::from_secs(3600));
    api.next_deployment(&provides()).unwrap();
    assert_eq!(api.server(), Some("https://a.test"));
}

#[test]
fn servers_are_not_changed_without_need_while_a_deployment_is_under_way() {
    let (model, clock) = (ServerModel::new(), VirtualClock::new(1));
    model.deploy("d1", "release-2", "testbox", b"x");
    model.add_host("https://a.test");
    model.add_host("https://b.test");
    model.set_reachable("https://a.test", false);
    let mut api = api_of(&model, &clock, &["https://a.test", "https://b.test"]);
    assert!(api.next_deployment(&provides()).unwrap().is_some());
    model.set_reachable("https://a.test", true);
    clock.advance(Duration::from_secs(7200));
    assert!(api.next_deployment(&provides()).unwrap().is_some());
    assert_eq!(api.server(), Some("https://b.test"));
    api.report_status(&d1(), DeploymentStatus::Failure, None).unwrap();
    assert_eq!(api.next_deployment(&provides()).unwrap(), None);
    assert_eq!(api.server(), Some("https://a.test"));
}

#[test]
fn every_server_is_asked_to_let_the_device_in_whatever_the_others_say() {
    for first in [400, 401, 403, 429, 500, 503] {
        let replies = [Reply::new(first, "{}"), Reply::new(200, TOKEN)];
        let transport = ScriptedTransport::list(replies);
        let clock = VirtualClock::new(1);
        let servers = settings(&["https://a.test", "https://b.test"]);
        let credentials = Box::new(TestCredentials::default());
        let mut api = Api::new(transport.boxed(), credentials, clock.shared(), servers);
        api.authenticate().unwrap();
        assert_eq!(api.server(), Some("https://b.test"));
    }
}

#[test]
fn redirects_stay_with_the_server_and_keep_the_request() {
    let clock = VirtualClock::new(1);
    let to = |status: u16, location: &str| Reply::new(status, "").header("location", location);
    let follow = |call: Call, replies: Vec<Reply>| {
        let transport = ScriptedTransport::list([vec![Reply::new(200, TOKEN)], replies].concat());
        let result = outcome(&mut scripted(&transport, &clock), call);
        (word(&result), transport.take_sent())
    };
    for status in [307, 308] {
        let (word, sent) = follow(Call::Report, vec![to(status, "/new"), Reply::new(204, "")]);
        assert_eq!(word, "Accepted");
        assert_eq!(sent[2].url, "https://server.test/new");
        assert_eq!((sent[2].method, &sent[2].body), ("PUT", &sent[1].body));
        assert_eq!(sent[2].headers, sent[1].headers);
    }
    for status in [301, 302, 303] {
        assert_eq!(follow(Call::Report, vec![to(status, "/new")]).0, format!("status {status}"));
    }
    let elsewhere = [
        "https://evil.test/",
        "https://server.test:8443/",
        "http://server.test/",
        "//evil.test/",
        "https://server.test@evil.test/",
        "https://server.test.evil.test/",
        "file:///",
        "https://server.test\\@evil.test/",
    ];
    for location in elsewhere {
        for call in CALLS {
            let (word, sent) = follow(call, vec![to(308, location)]);
            assert_eq!((word.as_str(), sent.len()), ("status 308", 2), "{location}");
        }
    }
    let looping = after_auth(to(307, "/again"));
    assert_eq!(word(&outcome(&mut scripted(&looping, &clock), Call::Report)), "status 307");
    assert_eq!(looping.take_sent().len(), 7);
    let encrypting = ScriptedTransport::list([
        to(308, "https://plain.test/api/devices/v1/authentication/auth_requests"),
        Reply::new(200, TOKEN),
    ]);
    let credentials = Box::new(TestCredentials::default());
    let servers = settings(&["http://plain.test"]);
    Api::new(encrypting.boxed(), credentials, clock.shared(), servers).authenticate().unwrap();
}

#[test]
fn a_get_follows_every_redirect_on_its_server() {
    for status in [301, 302, 303, 307, 308] {
        let replies = [
            Reply::new(200, TOKEN),
            Reply::new(404, ""),
            Reply::new(404, ""),
            Reply::new(status, "").header("location", "/elsewhere?x=1"),
            Reply::new(204, ""),
        ];
        let transport = ScriptedTransport::list(replies);
        assert_eq!(word(&outcome(&mut scripted(&transport, &VirtualClock::new(1)), Call::Next)), "None");
    }
}

#[test]
fn an_inventory_is_sent_when_it_changed_or_nobody_knows_it() {
    let (model, clock) = (ServerModel::new(), VirtualClock::new(1));
    let mut api = api_of(&model, &clock, &[SERVER]);
    let many = Attribute { name: "ip".into(), value: AttributeValue::Many(vec!["2".into(), "1".into()]) };
    let inventory = [one("z", "1"), many.clone()];
    api.send_inventory(&inventory).unwrap();
    api.send_inventory(&[many, one("z", "1")]).unwrap();
    assert_eq!(model.inventories(), 1);
    assert_eq!(model.inventory().unwrap(), r#"[{"name":"ip","value":["2","1"]},{"name":"z","value":"1"}]"#);
    api.forget_token();
    api.send_inventory(&inventory).unwrap();
    assert_eq!(model.inventories(), 2);
    // A new token by another call, too.
    model.revoke_tokens();
    api.next_deployment(&provides()).unwrap();
    api.send_inventory(&inventory).unwrap();
    assert_eq!(model.inventories(), 3);
    api.send_inventory(&inventory[..1]).unwrap();
    assert_eq!(model.inventories(), 4);
    // What was not taken is sent again.
    model.fail_next(Matcher::Of(Endpoint::Inventory), Failure::LostRequest);
    assert!(api.send_inventory(&inventory).is_err());
    api.send_inventory(&inventory).unwrap();
    assert_eq!(model.inventories(), 5);
}

#[test]
fn a_server_that_takes_no_put_gets_a_patch() {
    let (model, clock) = (ServerModel::new(), VirtualClock::new(1));
    model.set_inventory_put(false);
    api_of(&model, &clock, &[SERVER]).send_inventory(&[one("a", "1")]).unwrap();
    let methods: Vec<&str> = model.take_sent().iter().map(|sent| sent.method).collect();
    assert_eq!(methods, ["POST", "PUT", "PATCH"]);
}

#[test]
fn a_wait_that_the_server_asks_for_is_told_and_bounded() {
    let clock = VirtualClock::new(1);
    let check = |status: u16, text: &str, expected: Option<u64>| {
        let transport = after_auth(Reply::new(status, "").header("retry-after", text));
        let error = outcome(&mut scripted(&transport, &clock), Call::Next).unwrap_err();
        assert_eq!(error.retry_after(), expected.map(Duration::from_secs), "{status} {text}");
    };
    check(429, "2", Some(2));
    check(503, "Sun, 22 Nov 2026 19:05:36 GMT", Some(60));
    check(503, "99999999999999999999999", Some(86_400));
    check(500, "2", None);
    for garbage in ["-1", "", "soon", "1.5", "Sun, 99 Nov 2026"] {
        check(429, garbage, None);
    }
}

#[test]
fn secrets_are_never_shown_whatever_a_server_or_a_library_says() {
    let tenant = "dGVuYW50.c2VjcmV0.c2ln";
    let chain = |error: &ServerError| {
        let mut text = format!("{error} {error:?}");
        let mut source = error.source();
        while let Some(error) = source {
            text += &format!("{error} {error:?}");
            source = error.source();
        }
        text
    };
    for status in 100..600 {
        let said = format!(r#"{{"error":"{TOKEN} {tenant}"}}"#);
        let location = format!("https://server.test/{TOKEN}/{tenant}?{TOKEN}");
        let replies = [
            Reply::new(status, &said).header("location", location.clone()),
            Reply::new(status, format!("{TOKEN} {tenant}"))
                .header("content-encoding", format!("{TOKEN} {tenant}")),
            Reply::no_answer(&format!("{TOKEN} {tenant} {location}")),
            Reply::new(status, format!("{TOKEN} {tenant}")).header("retry-after", TOKEN),
            // Where the shortening cuts, and in another spelling.
            Reply::new(status, format!("{}{TOKEN}", "x".repeat(190))),
            Reply::new(status, format!("{{\"error\":\"\\u0064{}\"}}", &TOKEN[1..])),
        ];
        for reply in replies {
            for call in CALLS {
                let reply = reply.clone();
                let mut first = true;
                let transport = ScriptedTransport::answering(move |sent| {
                    if sent.path() == AUTH && std::mem::take(&mut first) {
                        return Reply::new(200, TOKEN);
                    }
                    reply.clone()
                });
                let settings = Settings { tenant_token: tenant.into(), ..settings(&[SERVER]) };
                assert!(!format!("{settings:?}").contains(tenant));
                let clock = VirtualClock::new(1);
                let credentials = Box::new(TestCredentials::default());
                let mut api = Api::new(transport.boxed(), credentials, clock.shared(), settings);
                for _ in 0..2 {
                    if let Err(error) = outcome(&mut api, call) {
                        let text = chain(&error);
                        let shown = [TOKEN, tenant, &TOKEN[..8]].iter().any(|secret| text.contains(secret));
                        assert!(!shown, "{status} {text}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_a_server_says_is_shortened_and_on_one_line() {
    let clock = VirtualClock::new(1);
    let said = |body: &str| {
        let transport = after_auth(Reply::new(500, body));
        outcome(&mut scripted(&transport, &clock), Call::Next).unwrap_err().to_string()
    };
    assert!(said(r#"{"error":"internal error","request_id":"1"}"#).ends_with("answered 500: internal error"));
    assert!(said("a\nb\u{1b}[2J").ends_with("a b\\u{1b}[2J"));
    assert!(said(&"ä".repeat(10_000)).chars().count() < 400);
    assert!(said("").ends_with("no explanation"));
    assert!(said("<html>").contains("a web page"));
}

#[test]
fn a_stop_a_missing_identity_and_no_server_end_a_call_before_it_begins() {
    for call in CALLS {
        let clock = VirtualClock::new(1);
        let transport = ScriptedTransport::list([]);
        let wrong = Box::new(TestCredentials { id_data: Err("no identity".into()) });
        let mut api = Api::new(transport.boxed(), wrong, clock.shared(), settings(&[SERVER, "b.test"]));
        assert_eq!(word(&outcome(&mut api, call)), "cannot learn the identity: no identity");
        let credentials = || Box::new(TestCredentials::default());
        let mut nowhere = Api::new(transport.boxed(), credentials(), clock.shared(), settings(&["", " "]));
        assert!(matches!(outcome(&mut nowhere, call), Err(ServerError::NoServer)));
        clock.stop();
        let mut api =
            Api::new(transport.boxed(), credentials(), clock.shared(), settings(&[SERVER, "b.test"]));
        assert!(matches!(outcome(&mut api, call), Err(ServerError::Stopped)));
    }
}

#[test]
fn a_log_that_is_empty_is_not_sent_and_a_long_one_loses_its_beginning() {
    let (model, clock) = (ServerModel::new(), VirtualClock::new(1));
    model.deploy("d1", "release-2", "testbox", b"x");
    let mut api = api_of(&model, &clock, &[SERVER]);
    assert_eq!(api.upload_log(&d1(), b"").unwrap(), ReportAnswer::Accepted);
    assert!(model.take_sent().is_empty());
    let line = |number: usize| {
        format!(r#"{{"timestamp":"2026-11-22T19:04:36Z","level":"info","message":"line {number}, {{"}}"#)
    };
    let lines: Vec<String> = (0..30_000).map(line).collect();
    assert_eq!(api.upload_log(&d1(), lines.join(",").as_bytes()).unwrap(), ReportAnswer::Accepted);
    let log = model.logs("d1").remove(0);
    assert!(log.len() < 1_000_000 + 64 && log.len() > 999_000);
    assert!(log.contains("line 29999,") && !log.contains("line 1,"));
}

#[test]
fn a_tenant_token_and_a_tier_are_sent_when_there_are_any() {
    let (model, clock) = (ServerModel::new(), VirtualClock::new(1));
    model.set_tenant("t.e.n");
    let mut without = api_of(&model, &clock, &[SERVER]);
    assert!(matches!(without.authenticate(), Err(ServerError::Unauthorized { .. })));
    assert!(!model.take_sent()[0].text().contains("tenant_token"));
    let mut settings = settings(&[SERVER]);
    settings.tenant_token = "t.e.n".into();
    settings.device_tier = Some("micro".into());
    let credentials = Box::new(TestCredentials::default());
    Api::new(model.transport(), credentials, clock.shared(), settings).authenticate().unwrap();
    assert!(model.take_sent()[0].text().contains(r#""tier":"micro""#));
}

/// A recorded request: method, target, headers, body.
struct Recorded {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
    bytes: usize,
}

fn recorded(text: &str) -> Recorded {
    let (head, body) = text.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    // The recording left out the frames of the chunks, and has "\n" for "\r\n".
    let bytes = text.len() - if body.starts_with("[CHUNKED]") { 9 } else { 0 } + head.lines().count() + 1;
    let body = body.trim_start_matches("[CHUNKED]").trim_end().to_owned();
    Recorded { method, target, headers, body, bytes }
}

/// The same request, apart from what is left out on purpose: `left_out` members of the body.
#[track_caller]
fn check_recorded(sent: &Sent, text: &str, left_out: &[&str]) {
    let recorded = recorded(text);
    assert_eq!(sent.method, recorded.method);
    assert_eq!(sent.url.strip_prefix(SERVER).unwrap(), recorded.target);
    for name in ["content-type", "authorization"] {
        assert_eq!(sent.header(name), recorded.headers.get(name).map(String::as_str), "{name}");
    }
    let (ours, theirs) = (sent.text(), recorded.body);
    if theirs.is_empty() {
        assert!(sent.body.is_none());
        return;
    }
    let (ours, theirs) = (Json::parse(ours.as_bytes()).unwrap(), Json::parse(theirs.as_bytes()).unwrap());
    assert_eq!(sorted(&ours), without(sorted(&theirs), left_out));
}

/// With the members of every object in order, and attributes by name: the recorded client has no order.
fn sorted(json: &Json) -> Json {
    match json {
        Json::Object(members) => {
            let mut members: Vec<(String, Json)> =
                members.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(members)
        }
        Json::List(items) => {
            let mut items: Vec<Json> = items.iter().map(sorted).collect();
            items.sort_by_key(|item| item.get("name").and_then(Json::text).map(str::to_owned));
            Json::List(items)
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => json.clone(),
    }
}

fn without(json: Json, names: &[&str]) -> Json {
    match json {
        Json::Object(members) => {
            Json::Object(members.into_iter().filter(|(name, _)| !names.contains(&name.as_str())).collect())
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::List(_) => json,
    }
}

/// The device of the recording; its signature is not compared.
struct RecordedDevice {
    id_data: String,
    public_key: String,
}

impl Credentials for RecordedDevice {
    fn id_data(&mut self) -> Result<String, CredentialsError> {
        Ok(self.id_data.clone())
    }
    fn public_key_pem(&self) -> String {
        self.public_key.clone()
    }
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, CredentialsError> {
        Ok(vec![0; 384])
    }
}

/// An authorized client like that of the recording, and what it sends from now on.
fn recorded_client(reply: impl FnMut(&Sent) -> Reply + Send + 'static) -> (Api, ScriptedTransport) {
    let auth = recorded(include_str!("fixtures/captures/auth.http"));
    let body = Json::parse(auth.body.as_bytes()).unwrap();
    let member = |name: &str| body.get(name).and_then(Json::text).unwrap().to_owned();
    let device = RecordedDevice { id_data: member("id_data"), public_key: member("pubkey") };
    let transport = ScriptedTransport::answering(reply);
    transport.push(Reply::new(200, "tok1.e30.sig"));
    let settings = Settings { tenant_token: member("tenant_token"), ..settings(&[SERVER]) };
    let mut api = Api::new(transport.boxed(), Box::new(device), VirtualClock::new(1).shared(), settings);
    api.authenticate().unwrap();
    (api, transport)
}

fn recorded_provides() -> BTreeMap<String, String> {
    let pairs = [("device_type", "testdev"), ("artifact_name", "release-1")];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn requests_are_those_of_the_recorded_client() {
    let (mut api, transport) = recorded_client(|sent| {
        let next = sent.path().ends_with("/next");
        Reply::new(if next && sent.method != "GET" { 404 } else { 200 }, "")
    });
    let auth = transport.take_sent().remove(0);
    let fixture = recorded(include_str!("fixtures/captures/auth.http"));
    assert_eq!((auth.method, auth.path()), (fixture.method.as_str(), fixture.target.as_str()));
    assert_eq!(auth.header("content-type"), Some("application/json"));
    assert!(auth.header("x-men-signature").is_some_and(|value| !value.contains('\n')));
    let theirs = Json::parse(fixture.body.as_bytes()).unwrap();
    assert_eq!(sorted(&Json::parse(auth.text().as_bytes()).unwrap()), sorted(&theirs));

    assert!(api.next_deployment(&recorded_provides()).is_err());
    let sent = transport.take_sent();
    let left_out = ["update_control_map"];
    check_recorded(&sent[0], include_str!("fixtures/captures/next-v2.http"), &left_out);
    check_recorded(&sent[1], include_str!("fixtures/captures/next-v1-post.http"), &[]);
    check_recorded(&sent[2], include_str!("fixtures/captures/next-v1-get.http"), &[]);

    let id = "d0000000-0000-4000-8000-000000000001";
    api.report_status(&DeploymentId::remembered(id), DeploymentStatus::Downloading, None).unwrap();
    check_recorded(&transport.take_sent()[0], include_str!("fixtures/captures/status.http"), &[]);

    let log = recorded(include_str!("fixtures/captures/log.http"));
    let messages = log.body.strip_prefix("{\"messages\":[").and_then(|rest| rest.strip_suffix("]}")).unwrap();
    api.upload_log(&DeploymentId::remembered(id), messages.as_bytes()).unwrap();
    check_recorded(&transport.take_sent()[0], include_str!("fixtures/captures/log.http"), &[]);
}

#[test]
fn inventories_are_those_of_the_recorded_client() {
    for fixture in [
        include_str!("fixtures/captures/inventory.http"),
        include_str!("fixtures/captures/inventory-patch.http"),
    ] {
        let (mut api, transport) =
            recorded_client(|sent| Reply::new(if sent.method == "PUT" { 405 } else { 200 }, ""));
        let ips = vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
        let attributes = [
            one("device_type", "testdev"),
            one("hostname", "box1"),
            one("artifact_name", "release-1"),
            one("mender_client_version", "3.4.0+ds1-5+b1"),
            Attribute { name: "ip".into(), value: AttributeValue::Many(ips) },
        ];
        api.send_inventory(&attributes).unwrap();
        let sent = transport.take_sent();
        let same_method = sent.iter().find(|sent| fixture.starts_with(sent.method)).unwrap();
        check_recorded(same_method, fixture, &[]);
    }
}

#[test]
fn a_poll_is_less_than_half_of_what_the_recorded_client_sends() {
    let theirs: usize = [
        include_str!("fixtures/captures/next-v2.http"),
        include_str!("fixtures/captures/next-v1-post.http"),
        include_str!("fixtures/captures/next-v1-get.http"),
    ]
    .map(|text| recorded(text).bytes)
    .iter()
    .sum();
    // An old server, the worst case: the variant is known after the first poll.
    let (mut api, transport) =
        recorded_client(|sent| Reply::new(if sent.method == "GET" { 204 } else { 404 }, ""));
    api.next_deployment(&recorded_provides()).unwrap();
    transport.take_sent();
    api.next_deployment(&recorded_provides()).unwrap();
    let sent = transport.take_sent();
    assert_eq!(sent.len(), 1);
    // What the transport adds: host, user-agent, content-length, connection.
    let ours = sent[0].wire_bytes() + 120;
    assert!(ours * 2 < theirs, "{ours} of {theirs} bytes");
}

#[test]
fn an_offer_and_a_request_are_shown_without_what_opens_doors() {
    let reply = r#"{"id":"d1","artifact":{"source":{"uri":"https://u:p@storage.test/a?signature=key"}}}"#;
    let transport = after_auth(Reply::new(200, reply));
    let mut api = scripted(&transport, &VirtualClock::new(1));
    let offer = api.next_deployment(&provides()).unwrap().unwrap();
    assert!(offer.source.url().ends_with("signature=key"));
    let shown = format!("{offer:?}");
    assert!(shown.contains("storage.test/a") && !shown.contains("key") && !shown.contains("u:p"), "{shown}");
    let headers = vec![("authorization", format!("Bearer {TOKEN}"))];
    let (method, purpose) = (Method::Get, Purpose::Api);
    let shown =
        format!("{:?}", Request { method, url: "https://h/a?key", headers, body: Some(b"key"), purpose });
    assert!(shown.contains("authorization") && !shown.contains(TOKEN) && !shown.contains("key"), "{shown}");
}

#[test]
fn answers_changed_at_random_are_understood_or_refused() {
    let good = br#"{"id":"d1","artifact":{"id":"a","artifact_name":"release-2","source":{"uri":"https://storage.test/a?x=1","expire":"2026"},"device_types_compatible":["testbox"]}}"#;
    let clock = VirtualClock::new(7);
    let mut offers = 0;
    for _ in 0..20_000 {
        let mut bytes = good.to_vec();
        for _ in 0..1 + clock.random() % 4 {
            let at = clock.random() as usize % bytes.len();
            match clock.random() % 4 {
                0 => bytes[at] = clock.random() as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"{}[]\",:\\/\0"[clock.random() as usize % 10]),
                _ => bytes.truncate(at + 8),
            }
        }
        let transport = after_auth(Reply::new(200, bytes));
        match scripted(&transport, &clock).next_deployment(&provides()) {
            Ok(Some(offer)) => {
                offers += 1;
                let id_is_plain =
                    offer.id.as_str().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
                assert!(
                    id_is_plain && !offer.id.as_str().is_empty() && !offer.id.as_str().contains(".."),
                    "{offer:?}"
                );
                let url = offer.source.url().to_ascii_lowercase();
                assert!(url.starts_with("http://") || url.starts_with("https://"), "{url}");
            }
            Err(ServerError::Malformed { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(offers > 1000, "{offers}");
}

/// What a watcher was told: server and token, or that there is none.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Option<String>>>>);

impl TokenWatcher for Told {
    fn held(&mut self, grant: Option<Grant<'_>>) {
        let text = grant.map(|grant| format!("{} {}", grant.server, grant.token));
        self.0.lock().unwrap().push(text);
    }
}

impl Told {
    fn take(&self) -> Vec<Option<String>> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn whoever_watches_hears_how_every_attempt_to_get_a_token_ended() {
    let (clock, told) = (VirtualClock::new(1), Told::default());
    // Authentication: refused, a token, an error, another token, refused. Everything else: 204, and 401 at last.
    let answers = [
        Reply::new(401, "{}"),
        Reply::new(200, "a.b.c"),
        Reply::new(500, "{}"),
        Reply::new(200, "d.e.f"),
        Reply::new(401, "{}"),
    ];
    let (count, refuse) = (Mutex::new(0), Arc::new(Mutex::new(false)));
    let refused = Arc::clone(&refuse);
    let transport = ScriptedTransport::answering(move |sent| {
        if sent.path() != AUTH {
            return Reply::new(if *refused.lock().unwrap() { 401 } else { 204 }, "");
        }
        let mut count = count.lock().unwrap();
        *count += 1;
        answers[*count - 1].clone()
    });
    let mut api = scripted(&transport, &clock);
    api.watch_token(Box::new(told.clone()));
    let of = |token: &str| Some(format!("{SERVER} {token}"));
    assert!(api.next_deployment(&provides()).is_err());
    assert_eq!(told.take(), [None]);
    assert_eq!(api.next_deployment(&provides()).unwrap(), None);
    assert_eq!(api.next_deployment(&provides()).unwrap(), None);
    assert_eq!(told.take(), [of("a.b.c")]);
    // A server that is in trouble takes nothing back.
    assert!(api.renew_token().is_err());
    assert_eq!(told.take(), [of("a.b.c")]);
    api.renew_token().unwrap();
    assert_eq!(told.take(), [of("d.e.f")]);
    *refuse.lock().unwrap() = true;
    assert!(api.next_deployment(&provides()).is_err());
    assert_eq!(told.take(), [None]);
    let shown = format!("{:?}", Grant { server: SERVER, token: TOKEN });
    assert!(shown.contains(SERVER) && !shown.contains(TOKEN), "{shown}");
}
