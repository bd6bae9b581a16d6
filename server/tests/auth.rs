//! Who gets a token: every row of the table, the keys, and what people decide.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common::{Device, accepted, authenticate, error, login, manage, request, server, server_in};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use server_core::Running;

const RECORDED: &[u8] = include_bytes!("fixtures/auth1.body");
const RECORDED_SIGNATURE: &str = include_str!("fixtures/auth1.sig");

#[test]
fn the_recorded_request_of_a_real_client_is_accepted() {
    let (running, management, _folder) = server(|options| options.auto_accept(true));
    let answer = authenticate(&running, RECORDED, RECORDED_SIGNATURE.trim());
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/jwt")));
    assert_eq!(answer.text().split('.').count(), 3);
    assert!(!answer.text().ends_with('\n'));
    let devices = management.devices().unwrap();
    assert_eq!(devices[0].identity_data["sn"], "A<B>&\"q\"");
    assert_eq!(devices[0].identity_data["mac"][1], "02:12:61:13:6c:43");
}

#[test]
fn the_signature_is_over_the_bytes_as_they_came() {
    let (running, _, _folder) = server(|options| options.auto_accept(true));
    let without_newline = &RECORDED[..RECORDED.len() - 1];
    let answer = authenticate(&running, without_newline, RECORDED_SIGNATURE.trim());
    assert_eq!(
        (error(&answer), answer.json()["error"].as_str()),
        (401, Some("signature verification failed"))
    );
}

#[test]
fn two_spellings_of_one_identity_are_one_device() {
    let (running, management, _folder) = server(|options| options.auto_accept(true));
    let device = Device::new("a");
    for id_data in ["{\"a\":\"\\u003c\",\"b\":\"2\"}", "{ \"b\":\"2\", \"a\":\"<\" }\n"] {
        let body =
            json!({ "id_data": id_data, "pubkey": device.pem(), "tenant_token": "", "tier": "standard" });
        let body = body.to_string() + "\n";
        let signature = STANDARD.encode(device.key.sign(body.as_bytes()));
        assert_eq!(authenticate(&running, body.as_bytes(), &signature).status, 200);
    }
    assert_eq!(management.devices().unwrap().len(), 1);
}

#[test]
fn requests_that_are_not_valid_are_400() {
    let (running, management, _folder) = server(|options| options.auto_accept(true));
    let device = Device::new("a");
    let (body, _) = device.auth_request();
    let path = "/api/devices/v1/authentication/auth_requests";
    let missing = request(&running, "POST", path, &[], body.as_bytes());
    assert_eq!(error(&missing), 400);
    assert_eq!(missing.json()["error"], "missing request signature header");
    let pem = device.pem();
    let bodies = [
        String::new(),
        "garbage".to_owned(),
        "[]".to_owned(),
        json!({ "pubkey": pem }).to_string(),
        json!({ "id_data": "{\"a\":\"b\"}" }).to_string(),
        json!({ "id_data": "", "pubkey": pem }).to_string(),
        json!({ "id_data": "not json", "pubkey": pem }).to_string(),
        json!({ "id_data": "{}", "pubkey": pem }).to_string(),
        json!({ "id_data": {"a": "b"}, "pubkey": pem }).to_string(),
        json!({ "id_data": "{\"a\":\"b\"}", "pubkey": "" }).to_string(),
        json!({ "id_data": "{\"a\":\"b\"}", "pubkey": "no key" }).to_string(),
        json!({ "id_data": "{\"a\":\"b\"}", "pubkey": pem.replace("PUBLIC", "RSA PUBLIC") }).to_string(),
        json!({ "id_data": "{\"a\":\"b\"}", "pubkey": pem.replace("MCow", "MCoy") }).to_string(),
    ];
    for body in bodies {
        let signature = STANDARD.encode(device.key.sign(body.as_bytes()));
        assert_eq!(error(&authenticate(&running, body.as_bytes(), &signature)), 400, "{body}");
    }
    assert_eq!(management.devices().unwrap(), []);
}

/// Whoever wrote the identity program reads it: neither the words of this program nor those of its language.
#[test]
fn an_identity_that_is_none_is_refused_in_words_that_say_what_is_wrong() {
    let (running, management, _folder) = server(|options| options.auto_accept(true));
    let device = Device::new("a");
    let large = json!({ "mac": "x".repeat(5000) }).to_string();
    let said = [
        ("null", "id_data cannot be used: it is no JSON object with at least one key"),
        ("{}", "id_data cannot be used: it is no JSON object with at least one key"),
        (
            r#"{"mac":null}"#,
            "id_data cannot be used: each value has to be a text, a number, true or false, or a list",
        ),
        (
            r#"{"mac":{"eth0":"a"}}"#,
            "id_data cannot be used: each value has to be a text, a number, true or false",
        ),
        (
            large.as_str(),
            "id_data cannot be used: it is too large: 100 keys, 4096 characters of a key or a value, and 8192",
        ),
    ];
    for (id_data, words) in said {
        let body = json!({ "id_data": id_data, "pubkey": device.pem() }).to_string();
        let signature = STANDARD.encode(device.key.sign(body.as_bytes()));
        let answer = authenticate(&running, body.as_bytes(), &signature);
        assert_eq!(error(&answer), 400, "{id_data}");
        let told = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(told.starts_with(words), "{told}");
    }
    let body = json!({ "identity_data": { "mac": null }, "pubkey": device.pem() });
    let refused = management.ask("POST", "/api/management/v2/devauth/devices", Some(body));
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("identity_data cannot be used: each value has to be a text"), "{told}");
    assert_eq!(management.devices().unwrap(), []);
}

#[test]
fn signatures_of_others_are_401_and_leave_no_device() {
    let (running, management, _folder) = server(|options| options.auto_accept(true));
    let (body, good) = Device::new("a").auth_request();
    let other = STANDARD.encode(Device::new("a").key.sign(body.as_bytes()));
    for signature in [other.as_str(), "AAAA", "not base64!", &good[..20]] {
        assert_eq!(error(&authenticate(&running, body.as_bytes(), signature)), 401, "{signature}");
    }
    assert_eq!(management.devices().unwrap(), []);
}

#[test]
fn ecdsa_keys_are_accepted() {
    let (running, _, _folder) = server(|options| options.auto_accept(true));
    let (algorithm, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
    let info = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\0";
    let info = STANDARD.encode([info, key.public_key().as_ref()].concat());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{info}\n-----END PUBLIC KEY-----\n");
    let body = json!({ "id_data": "{\"mac\":\"a\"}", "pubkey": pem }).to_string();
    let signature = STANDARD.encode(key.sign(&random, body.as_bytes()).unwrap());
    assert_eq!(authenticate(&running, body.as_bytes(), &signature).status, 200);

    let recorded: [(&[u8], &str); 2] = [
        (include_bytes!("fixtures/p384.body"), include_str!("fixtures/p384.sig")),
        (include_bytes!("fixtures/p521.body"), include_str!("fixtures/p521.sig")),
    ];
    for (body, signature) in recorded {
        assert_eq!(authenticate(&running, body, signature).status, 200);
        let changed = String::from_utf8_lossy(body).replace("\\\"p", "\\\"q");
        assert_ne!(changed.as_bytes(), body);
        assert_eq!(error(&authenticate(&running, changed.as_bytes(), signature)), 401);
    }
}

#[test]
fn pending_rejected_and_removed_devices_are_401() {
    let (running, management, _folder) = server(|options| options);
    let mut device = Device::new("a");
    assert_eq!(error(&device.authenticate(&running)), 401);
    let id = management.devices().unwrap()[0].id.clone();
    management.accept(&id).unwrap();
    assert_eq!(device.authenticate(&running).status, 200);
    assert_eq!(device.next(&running).status, 204);
    management.reject(&id).unwrap();
    assert_eq!(error(&device.next(&running)), 401);
    assert_eq!(error(&device.authenticate(&running)), 401);
    management.accept(&id).unwrap();
    assert_eq!(error(&device.next(&running)), 401, "a token from before the rejection");
    assert_eq!(device.authenticate(&running).status, 200);
    assert_eq!(device.next(&running).status, 204);
    management.decommission(&id).unwrap();
    assert_eq!(error(&device.next(&running)), 401);
    assert_eq!(management.devices().unwrap(), []);
}

#[test]
fn a_preauthorized_device_is_let_in_at_once() {
    let (running, management, _folder) = server(|options| options);
    let mut device = Device::new("a");
    let id = management.preauthorize(&device.identity, &device.pem()).unwrap();
    assert_eq!(management.devices().unwrap()[0].status, "preauthorized");
    assert!(management.preauthorize(&device.identity, &device.pem()).is_err());
    assert_eq!(device.authenticate(&running).status, 200);
    let devices = management.devices().unwrap();
    assert_eq!((devices[0].id.as_str(), devices[0].status.as_str()), (id.as_str(), "accepted"));
    let mut other_key = Device::new("a");
    assert_eq!(other_key.authenticate(&running).status, 401);
}

#[test]
fn accepting_a_second_key_rejects_the_first() {
    let (running, management, _folder) = server(|options| options.auto_accept(true));
    let (mut first, mut second) = (Device::new("a"), Device::new("a"));
    assert_eq!(first.authenticate(&running).status, 200);
    // Whoever knows the identity must not take the device over.
    assert_eq!(second.authenticate(&running).status, 401);
    let id = management.devices().unwrap()[0].id.clone();
    management.accept(&id).unwrap();
    assert_eq!(second.authenticate(&running).status, 200);
    assert_eq!(first.next(&running).status, 401);
    let device = &management.devices().unwrap()[0];
    let statuses: Vec<&str> = device.auth_sets.iter().map(|set| set.status.as_str()).collect();
    assert_eq!(statuses, ["rejected", "accepted"]);
    let path =
        |set: usize| format!("/api/management/v2/devauth/devices/{id}/auth/{}", device.auth_sets[set].id);
    assert_eq!(manage(&running, "DELETE", &path(0), Value::Null).status, 204);
    assert_eq!(management.devices().unwrap()[0].auth_sets.len(), 1);
    assert_eq!(manage(&running, "DELETE", &path(1), Value::Null).status, 204);
    assert_eq!(management.devices().unwrap()[0].status, "noauth");
}

#[test]
fn transitions_of_a_set_are_those_of_the_table() {
    let (running, management, _folder) = server(|options| options);
    let put = |id: &str, set: &str, status: &str| {
        let path = format!("/api/management/v2/devauth/devices/{id}/auth/{set}/status");
        manage(&running, "PUT", &path, json!({ "status": status })).status
    };
    Device::new("a").authenticate(&running);
    let device = management.devices().unwrap().remove(0);
    let set = device.auth_sets[0].id.as_str();
    for (status, answer) in
        [("accepted", 204), ("accepted", 204), ("pending", 422), ("rejected", 204), ("accepted", 204)]
    {
        assert_eq!(put(&device.id, set, status), answer, "{status}");
    }
    assert_eq!(put(&device.id, set, "preauthorized"), 400);
    assert_eq!(put(&device.id, "none", "accepted"), 404);
    assert_eq!(put("none", set, "accepted"), 404);
    let waiting = Device::new("b");
    let id = management.preauthorize(&waiting.identity, &waiting.pem()).unwrap();
    let devices = management.devices().unwrap();
    let set = &devices.iter().find(|device| device.id == id).unwrap().auth_sets[0].id;
    assert_eq!(put(&id, set, "rejected"), 422);
}

#[test]
fn a_full_server_lets_nobody_in() {
    let (running, management, _folder) = server(|options| options.auto_accept(true).max_devices(1));
    assert_eq!(Device::new("a").authenticate(&running).status, 200);
    let mut second = Device::new("b");
    assert_eq!(second.authenticate(&running).status, 401);
    let waiting =
        management.devices().unwrap().into_iter().find(|device| device.status == "pending").unwrap();
    let refused = management.accept(&waiting.id).unwrap_err().to_string();
    assert!(refused.contains("422"), "{refused}");
}

#[test]
fn a_revoked_token_is_401_and_a_new_one_is_not() {
    let (running, management, _folder) = server(|options| options);
    let (mut device, _) = accepted(&running, "a");
    let set = management.devices().unwrap()[0].auth_sets[0].id.clone();
    let path = format!("/api/management/v2/devauth/tokens/{set}");
    assert_eq!(manage(&running, "DELETE", &path, Value::Null).status, 204);
    assert_eq!(device.next(&running).status, 401);
    assert_eq!(device.authenticate(&running).status, 200);
    assert_eq!(device.next(&running).status, 204);
    assert_eq!(manage(&running, "DELETE", "/api/management/v2/devauth/tokens/none", Value::Null).status, 404);
}

#[test]
fn expired_and_forged_tokens_are_401_everywhere() {
    let (running, _, _folder) = server(|options| options.auto_accept(true).token_lifetime_seconds(0));
    let mut device = Device::new("a");
    assert_eq!(device.authenticate(&running).status, 200);
    let claims = device.token.split('.').nth(1).unwrap().to_owned();
    let none = URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}");
    let tokens = [device.token.clone(), format!("{none}.{claims}."), String::new(), "x".repeat(9000)];
    let id = "00000000-0000-4000-8000-000000000000";
    for token in tokens {
        device.token = token;
        for (method, path) in [
            ("POST", "/api/devices/v2/deployments/device/deployments/next".to_owned()),
            ("POST", "/api/devices/v1/deployments/device/deployments/next".to_owned()),
            (
                "GET",
                "/api/devices/v1/deployments/device/deployments/next?artifact_name=a&device_type=b"
                    .to_owned(),
            ),
            ("PUT", format!("/api/devices/v1/deployments/device/deployments/{id}/status")),
            ("PUT", format!("/api/devices/v1/deployments/device/deployments/{id}/log")),
            ("PUT", "/api/devices/v1/inventory/device/attributes".to_owned()),
            ("PATCH", "/api/devices/v1/inventory/device/attributes".to_owned()),
        ] {
            assert_eq!(error(&device.ask(&running, method, &path, "{}")), 401, "{method} {path}");
        }
    }
}

#[test]
fn people_need_the_token_or_the_password() {
    let (running, _, folder) = server(|options| options.user("ada", "secret"));
    let path = "/api/management/v2/devauth/devices";
    let (device, _) = accepted(&running, "a");
    for header in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic YWRhOnNlY3JldA==",
        &format!("Bearer {}", device.token),
    ] {
        assert_eq!(
            error(&request(&running, "GET", path, &[("Authorization", header)], b"")),
            401,
            "{header}"
        );
    }
    assert_eq!(login(&running, "ada:wrong").status, 401);
    let token = login(&running, "ada:secret");
    assert_eq!((token.status, token.header("content-type")), (200, Some("application/jwt")));
    let bearer = format!("Bearer {}", token.text());
    assert_eq!(request(&running, "GET", path, &[("Authorization", &bearer)], b"").status, 200);
    // A person is no device.
    let next = "/api/devices/v2/deployments/device/deployments/next";
    assert_eq!(request(&running, "POST", next, &[("Authorization", &bearer)], b"{}").status, 401);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(folder.path().join("management-token")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_login_ends_with_what_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let start = |user: Option<(&str, &str)>| {
        let (running, _) = server_in(folder.path(), |options| match user {
            Some((name, password)) => options.user(name, password),
            None => options,
        });
        running
    };
    let ask = |running: &Running, method: &str, path: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        request(running, method, &format!("/api/management/{path}"), &[("Authorization", &bearer)], b"")
            .status
    };
    let works = |running: &Running, token: &str| ask(running, "GET", "v2/devauth/devices", token) == 200;
    let ada = Some(("ada", "secret"));

    let running = start(ada);
    let [first, second] = [(), ()].map(|()| login(&running, "ada:secret").text());
    assert_eq!(ask(&running, "POST", "v1/useradm/auth/logout", &first), 202);
    assert!(!works(&running, &first) && works(&running, &second), "the other login goes on");
    assert_eq!(ask(&running, "POST", "v1/useradm/auth/logout", &first), 401);
    // The management token is no login, and does not end.
    let token = running.management_token().to_owned();
    assert_eq!(ask(&running, "POST", "v1/useradm/auth/logout", &token), 202);
    assert!(works(&running, &token));
    running.stop();

    let running = start(ada);
    assert!(!works(&running, &first), "a logout is remembered");
    assert!(works(&running, &second), "a start ends nothing");
    running.stop();
    for other in [Some(("ada", "other")), Some(("eve", "secret")), None] {
        let running = start(other);
        assert!(!works(&running, &second), "{other:?}");
        running.stop();
    }
    std::fs::remove_file(folder.path().join("management-token")).unwrap();
    let running = start(ada);
    assert!(!works(&running, &second) && !works(&running, &token), "a new management token");
    assert!(works(&running, &login(&running, "ada:secret").text()));
}

#[test]
fn devices_are_listed_counted_and_searched() {
    let (running, management, _folder) = server(|options| options);
    for number in 0..25 {
        Device::new(&number.to_string()).authenticate(&running);
    }
    let ids: Vec<String> = management.devices().unwrap().into_iter().map(|device| device.id).collect();
    management.accept(&ids[0]).unwrap();
    let get =
        |path: &str| manage(&running, "GET", &format!("/api/management/v2/devauth/{path}"), Value::Null);
    let page = get("devices?page=2&per_page=10&status=pending");
    assert_eq!(page.json().as_array().unwrap().len(), 10);
    assert_eq!(page.header("x-total-count"), Some("24"));
    let link = page.header("link").unwrap();
    for part in [
        "page=1&per_page=10&status=pending>; rel=\"prev\"",
        "page=3&per_page=10&status=pending>; rel=\"next\"",
    ] {
        assert!(link.contains(part), "{link}");
    }
    assert_eq!(get("devices").json().as_array().unwrap().len(), 20);
    for bad in ["devices?page=0", "devices?per_page=501", "devices?page=x"] {
        assert_eq!(error(&get(bad)), 400);
    }
    assert_eq!(get("devices/count?status=pending").json(), json!({ "count": 24 }));
    assert_eq!(get("limits/max_devices").json(), json!({ "limit": -1 }));
    assert_eq!(get(&format!("devices/{}", ids[0])).json()["status"], "accepted");
    assert_eq!(error(&get("devices/none")), 404);
    let wanted = json!({ "id": [ids[0], ids[1]], "status": "accepted" });
    let found = manage(&running, "POST", "/api/management/v2/devauth/devices/search", wanted);
    assert_eq!(found.json().as_array().unwrap().len(), 1);
}
