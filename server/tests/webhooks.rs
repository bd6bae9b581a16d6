//! Webhooks: who is told what, signed, in which order, and what happens when nobody answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, accepted, last_of, manage, request, server, server_in, until};
use crate::operations::{metric, on_any_port};
use ring::hmac;
use serde_json::{Value, json};
use server_core::Running;

const INTEGRATIONS: &str = "/api/management/v1/iot-manager/integrations";
const EVENTS: &str = "/api/management/v1/iot-manager/events";
const ATTRIBUTES: &str = "/api/devices/v1/inventory/device/attributes";
const SECRET: &str = "00ff10A0";

/// Somebody who is told, on this machine.
struct Hook {
    url: String,
    /// What it answers.
    status: Arc<AtomicU16>,
    told: Receiver<(String, Vec<u8>)>,
}

impl Hook {
    fn new() -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
        let status = Arc::new(AtomicU16::new(204));
        let (tell, told) = channel();
        let answer = status.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if reader.read_line(&mut head).unwrap_or(0) == 0 {
                        break;
                    }
                }
                let length = head
                    .to_lowercase()
                    .split_once("content-length: ")
                    .map(|(_, rest)| rest.split("\r\n").next().unwrap_or_default().parse::<usize>().unwrap());
                let mut body = vec![0; length.unwrap_or(0)];
                if reader.read_exact(&mut body).is_err() {
                    continue;
                }
                let status = answer.load(Ordering::SeqCst);
                let text = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                // Who asked may be gone.
                let _ = reader.get_mut().write_all(text.as_bytes());
                if tell.send((head, body)).is_err() {
                    return;
                }
            }
        });
        Hook { url, status, told }
    }

    /// The next thing it was told.
    fn next(&self) -> Value {
        let (head, body) = self.told.recv_timeout(PATIENCE).expect("it is told something");
        assert!(head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{head}");
        let head = head.to_lowercase();
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
        assert!(head.contains("x-men-algorithm: men-hmac-sha256-payload\r\n"), "{head}");
        let tag = head.split_once("x-men-signature: ").unwrap().1.split("\r\n").next().unwrap().to_owned();
        let tag: Vec<u8> =
            (0..tag.len()).step_by(2).map(|at| u8::from_str_radix(&tag[at..at + 2], 16).unwrap()).collect();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[0x00, 0xff, 0x10, 0xa0]);
        hmac::verify(&key, &body, &tag).expect("it is signed");
        serde_json::from_slice(&body).unwrap()
    }

    /// The next thing, without its id and time.
    fn next_of(&self, kind: &str) -> Value {
        let told = self.next();
        assert_eq!(told["type"], kind, "{told}");
        assert!(told["id"].is_string() && told["time"].is_string(), "{told}");
        told["data"].clone()
    }

    fn integration(&self, scopes: Value) -> Value {
        json!({
            "provider": "webhook", "description": "d", "scopes": scopes,
            "credentials": { "type": "http", "http": { "url": self.url, "secret": SECRET } },
        })
    }
}

fn ask(running: &Running, method: &str, path: &str, body: Value) -> crate::common::Answer {
    manage(running, method, path, body)
}

#[test]
fn a_webhook_is_told_what_happens_to_devices_signed_and_in_order() {
    let (running, _management, _folder) = server(|options| options.webhooks_may_be_private(true));
    // What was before is not told.
    let (_, before) = accepted(&running, "before");
    let receiver = Hook::new();
    let made = ask(&running, "POST", INTEGRATIONS, receiver.integration(json!(["deviceauth", "inventory"])));
    assert_eq!(made.status, 201, "{}", made.text());
    let integration = last_of(&made);

    let (device, id) = accepted(&running, "a");
    let told = receiver.next_of("device-provisioned");
    assert_eq!((&told["id"], &told["status"]), (&json!(id), &json!("accepted")));
    assert_eq!(told["auth_sets"][0]["identity_data"]["mac"], "a");
    assert_eq!(told["auth_sets"][0]["device_id"], json!(id));
    assert!(told["created_ts"].is_string() && told["auth_sets"][0]["pubkey"].is_string(), "{told}");

    let report = |value: u64| {
        let body = json!([{ "name": "n", "value": value }]).to_string();
        assert_eq!(device.ask(&running, "PUT", ATTRIBUTES, &body).status, 200);
    };
    // Only what is new is told.
    [1, 1, 2].into_iter().for_each(report);
    for value in [1, 2] {
        let told = receiver.next_of("device-inventory-changed");
        assert_eq!((&told["device_id"], &told["tenant_id"]), (&json!(id), &json!("")));
        let one = &told["inventory"][0];
        assert_eq!(
            (&one["name"], &one["value"], &one["scope"]),
            (&json!("n"), &json!(value), &json!("inventory"))
        );
    }

    let device_path = format!("/api/management/v2/devauth/devices/{id}");
    let known = ask(&running, "GET", &device_path, Value::Null).json();
    let set = known["auth_sets"][0]["id"].as_str().unwrap();
    let status = format!("{device_path}/auth/{set}/status");
    assert_eq!(ask(&running, "PUT", &status, json!({ "status": "rejected" })).status, 204);
    assert_eq!(receiver.next_of("device-status-changed"), json!({ "id": id, "status": "rejected" }));
    assert_eq!(ask(&running, "DELETE", &device_path, Value::Null).status, 204);
    assert_eq!(receiver.next_of("device-decommissioned"), json!({ "id": id }));

    // What was told is listed, the newest first; what was not, nowhere.
    let one = format!("{EVENTS}?integration_id={integration}&per_page=2");
    let mut listed = ask(&running, "GET", &one, Value::Null);
    while listed.header("X-Total-Count") != Some("5") {
        listed = ask(&running, "GET", &one, Value::Null);
    }
    let events = listed.json();
    assert_eq!((&events[0]["type"], events.as_array().unwrap().len()), (&json!("device-decommissioned"), 2));
    let told = &events[0]["delivery_statuses"];
    let expected = json!([{
        "integration_id": integration, "success": true, "status_code": 204, "tries": 1,
    }]);
    assert_eq!(told, &expected);
    let all = ask(&running, "GET", EVENTS, Value::Null);
    assert_eq!(all.header("X-Total-Count"), Some("5"), "{}", all.text());
    assert!(!all.text().contains(&before));
}

#[test]
fn a_receiver_that_is_down_is_told_later_in_the_same_order_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let private = |options: server_core::Options| options.webhooks_may_be_private(true);
    let receiver = Hook::new();
    receiver.status.store(503, Ordering::SeqCst);
    let (running, _) = server_in(folder.path(), private);
    let made = ask(&running, "POST", INTEGRATIONS, receiver.integration(json!(["deviceauth"])));
    let integration = last_of(&made);
    // What is not in its scope is passed over.
    let (device, one) = accepted(&running, "one");
    let report = json!([{ "name": "n", "value": 1 }]).to_string();
    assert_eq!(device.ask(&running, "PUT", ATTRIBUTES, &report).status, 200);
    let (_, two) = accepted(&running, "two");
    let first = receiver.next();
    assert_eq!(first["data"]["id"], json!(one));
    // The second try comes after the first one was noted.
    assert_eq!(receiver.next(), first);
    running.stop();

    let (running, _) = server_in(folder.path(), private);
    // Another that answers is not kept waiting by the one that does not.
    let other = Hook::new();
    assert_eq!(ask(&running, "POST", INTEGRATIONS, other.integration(json!([]))).status, 201);
    let (_, three) = accepted(&running, "three");
    assert_eq!(other.next_of("device-provisioned")["id"], json!(three));
    receiver.status.store(200, Ordering::SeqCst);
    let mut told = receiver.next();
    while told == first {
        told = receiver.next();
    }
    // It was told the first one until it took it, and then the others.
    assert_eq!(told["data"]["id"], json!(two));
    assert_eq!(receiver.next()["data"]["id"], json!(three));

    // One that refuses is not told the same again.
    receiver.status.store(410, Ordering::SeqCst);
    let (_, four) = accepted(&running, "four");
    assert_eq!(receiver.next()["data"]["id"], json!(four));
    receiver.status.store(200, Ordering::SeqCst);
    let (_, five) = accepted(&running, "five");
    assert_eq!(receiver.next()["data"]["id"], json!(five));
    let listed = |running: &Running| {
        ask(running, "GET", &format!("{EVENTS}?integration_id={integration}"), Value::Null).json()
    };
    until(|| listed(&running).as_array().unwrap().len() >= 5);
    let events = listed(&running);
    let refused = &events[1]["delivery_statuses"][0];
    assert_eq!((&refused["success"], &refused["status_code"]), (&json!(false), &json!(410)));
    assert_eq!(refused["error"], "it answered 410");
    let first = &events[4]["delivery_statuses"][0];
    assert_eq!(first["success"], true);
    assert!(first["tries"].as_u64().unwrap() > 1, "{first}");

    // Where it goes can be changed, and it can be taken away.
    let path = format!("{INTEGRATIONS}/{integration}");
    let moved = json!({ "type": "http", "http": { "url": other.url, "secret": SECRET } });
    assert_eq!(ask(&running, "PUT", &format!("{path}/credentials"), moved).status, 204);
    let (_, six) = accepted(&running, "six");
    // Both go there now; each tells of four and five, or of six only.
    let mut sixes = 0;
    while sixes < 2 {
        sixes += usize::from(other.next()["data"]["id"] == json!(six));
    }
    assert_eq!(ask(&running, "DELETE", &path, Value::Null).status, 204);
    assert_eq!(ask(&running, "DELETE", &path, Value::Null).status, 404);
    let left = ask(&running, "GET", INTEGRATIONS, Value::Null);
    assert_eq!(left.json().as_array().unwrap().len(), 1);
    assert_eq!(left.json()[0]["credentials"]["http"]["secret"], "<omitted>");
    assert!(!left.text().contains(SECRET), "{}", left.text());
}

#[test]
fn addresses_that_are_not_public_are_not_asked_unless_that_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Hook::new();
    // It was made when that was allowed.
    let (running, _) = server_in(folder.path(), |options| options.webhooks_may_be_private(true));
    let made = ask(&running, "POST", INTEGRATIONS, receiver.integration(json!(["deviceauth"])));
    assert_eq!(made.status, 201, "{}", made.text());
    let integration = last_of(&made);
    running.stop();
    let (running, _) = server_in(folder.path(), |options| options.metrics(on_any_port()));
    accepted(&running, "a");
    let failed = || metric(&running, "rust_ota_server_webhook_deliveries_total{result=\"failed\"}");
    until(|| failed() >= Some(1.0));
    assert!(receiver.told.try_recv().is_err(), "nobody was asked");
    // What needs no question is refused at once, also where one is changed.
    let credentials = |url: &str| json!({ "type": "http", "http": { "url": url } });
    for url in [
        "http://127.0.0.1:1/x",
        "https://[::1]/",
        "http://localhost:8080",
        "http://10.0.0.1",
        "http://2130706433",
    ] {
        let body = json!({ "provider": "webhook", "credentials": credentials(url) });
        let made = ask(&running, "POST", INTEGRATIONS, body);
        assert_eq!((made.status, made.text().contains("--webhook-allow-private")), (422, true), "{url}");
        let path = format!("{INTEGRATIONS}/{integration}/credentials");
        assert_eq!(ask(&running, "PUT", &path, credentials(url)).status, 422, "{url}");
    }
    let path = format!("{INTEGRATIONS}/{integration}/credentials");
    assert_eq!(ask(&running, "PUT", &path, credentials("https://192.0.2.1.example/")).status, 204);
}

#[test]
fn what_became_of_events_is_counted_and_so_are_those_that_wait() {
    let (running, _management, _folder) =
        server(|options| options.webhooks_may_be_private(true).metrics(on_any_port()));
    let of = |result: &str| {
        let series = format!("rust_ota_server_webhook_deliveries_total{{result=\"{result}\"}}");
        metric(&running, &series).unwrap()
    };
    let waiting = || metric(&running, "rust_ota_server_webhook_events_waiting").unwrap();
    let receiver = Hook::new();
    assert_eq!(ask(&running, "POST", INTEGRATIONS, receiver.integration(json!(["deviceauth"]))).status, 201);
    accepted(&running, "one");
    until(|| of("delivered") >= 1.0);
    receiver.status.store(410, Ordering::SeqCst);
    accepted(&running, "two");
    until(|| of("refused") >= 1.0);
    until(|| waiting() <= 0.0);
    receiver.status.store(503, Ordering::SeqCst);
    accepted(&running, "three");
    accepted(&running, "four");
    until(|| of("failed") >= 1.0);
    until(|| waiting() >= 2.0);
    assert_eq!((of("delivered"), of("refused"), waiting()), (1.0, 1.0, 2.0));
}

#[test]
fn a_stop_does_not_wait_for_a_receiver_that_says_nothing() {
    let (running, _management, _folder) = server(|options| options.webhooks_may_be_private(true));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut order = Hook::new().integration(json!(["deviceauth"]));
    order["credentials"]["http"]["url"] = json!(format!("http://{}/", silent.local_addr().unwrap()));
    assert_eq!(ask(&running, "POST", INTEGRATIONS, order).status, 201);
    accepted(&running, "a");
    // It is asked, and will not answer.
    let (_asking, _) = silent.accept().unwrap();
    let began = Instant::now();
    running.stop();
    // Threads that the runtime waits for have two seconds.
    assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
}

#[test]
fn what_cannot_be_a_webhook_is_refused() {
    let (running, _management, _folder) = server(|options| options);
    let http = |url: &str| json!({ "type": "http", "http": { "url": url } });
    let with =
        |provider: &str, credentials: Value| json!({ "provider": provider, "credentials": credentials });
    for (body, status) in [
        (json!({}), 400),
        (with("webhook", json!({})), 400),
        (with("webhook", json!({ "type": "http" })), 400),
        (with("webhook", http("ftp://a")), 400),
        (with("webhook", http("https://user:word@a")), 400),
        (with("webhook", json!({ "type": "http", "http": { "url": "https://a", "secret": "xyz" } })), 400),
        (with("webhook", json!({ "type": "sas", "connection_string": "x" })), 422),
        (with("iot-hub", http("https://a")), 422),
    ] {
        let answer = ask(&running, "POST", INTEGRATIONS, body.clone());
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
    }
    assert_eq!(request(&running, "GET", INTEGRATIONS, &[], b"").status, 401);
    assert_eq!(ask(&running, "GET", INTEGRATIONS, Value::Null).json(), json!([]));
    for n in 0..21 {
        let answer = ask(&running, "POST", INTEGRATIONS, with("webhook", http("https://host.example/")));
        assert_eq!(answer.status, if n < 20 { 201 } else { 409 }, "{n}");
    }
}

#[test]
fn a_receiver_that_says_nothing_keeps_no_other_waiting() {
    let (running, _management, _folder) = server(|options| options.webhooks_may_be_private(true));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = Hook::new();
    let mut order = hook.integration(json!(["deviceauth"]));
    assert_eq!(ask(&running, "POST", INTEGRATIONS, order.clone()).status, 201);
    order["credentials"]["http"]["url"] = json!(format!("http://{}/", silent.local_addr().unwrap()));
    assert_eq!(ask(&running, "POST", INTEGRATIONS, order).status, 201);
    let (_, one) = accepted(&running, "one");
    let (mut asking, _) = silent.accept().unwrap();
    assert_eq!(hook.next()["data"]["id"], json!(one));
    let (_, two) = accepted(&running, "two");
    assert_eq!(hook.next()["data"]["id"], json!(two));
    // The other one is still being waited for: its connection is open, and there is no second one.
    asking.set_nonblocking(true).unwrap();
    let mut read = Vec::new();
    let ended = asking.read_to_end(&mut read);
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_fleet_that_was_moved_goes_on_where_it_was_with_the_same_ids() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let private = |options: server_core::Options| options.webhooks_may_be_private(true);
    let hook = Hook::new();
    let (running, _) = server_in(one.path(), private);
    assert_eq!(ask(&running, "POST", INTEGRATIONS, hook.integration(json!(["deviceauth"]))).status, 201);
    accepted(&running, "first");
    let first = hook.next();
    // It is stored that it was told.
    until(|| ask(&running, "GET", EVENTS, Value::Null).json()[0]["delivery_statuses"] != json!([]));
    hook.status.store(503, Ordering::SeqCst);
    accepted(&running, "second");
    let second = hook.next();
    assert_ne!(first["id"], second["id"]);
    running.stop();
    let place = |folder: &std::path::Path| server_core::transfer::Place::Folder(folder.to_owned());
    let moved = server_core::transfer::move_fleet(
        &place(one.path()),
        &place(two.path()),
        &Default::default(),
        &mut |_| {},
    );
    assert!(moved.unwrap().events > 0);
    hook.status.store(200, Ordering::SeqCst);
    let (running, _) = server_in(two.path(), private);
    let (_, third) = accepted(&running, "third");
    // What was told in the same moment may come again, under the id that it had.
    let mut told = hook.next();
    while told == first {
        told = hook.next();
    }
    while told == second {
        told = hook.next();
    }
    assert_eq!(told["data"]["id"], json!(third));
    let listed = ask(&running, "GET", EVENTS, Value::Null).json();
    let ids: Vec<&Value> = listed.as_array().unwrap().iter().map(|event| &event["id"]).collect();
    assert_eq!(ids, [&told["id"], &second["id"], &first["id"]]);
}
