//! `If-Match` at everything that two people may change: of two who have seen the same, one is refused.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use serde_json::{Value, json};
use server_core::Running;

use crate::common::{accepted, artifact, manage, request, server};
use crate::users::at_once;

fn tag_of(running: &Running, path: &str) -> String {
    let answer = manage(running, "GET", path, Value::Null);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.header("ETag").unwrap().to_owned()
}

fn change(running: &Running, method: &str, path: &str, seen: Option<&str>, body: &Value) -> u16 {
    let token = format!("Bearer {}", running.management_token());
    let mut headers = vec![("Authorization", token.as_str())];
    headers.extend(seen.map(|tag| ("If-Match", tag)));
    request(running, method, path, &headers, body.to_string().as_bytes()).status
}

#[test]
fn of_two_people_who_have_seen_the_same_one_is_refused() {
    let (running, management, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let artifact = management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let roles = "/api/management/v2/useradm/roles";
    let role = |text: String| json!({ "name": "lab", "description": text, "permission_sets_with_scope": [] });
    assert_eq!(manage(&running, "POST", roles, role("first".to_owned())).status, 201);
    let filters = "/api/management/v2/inventory/filters";
    let filter = |value: String| json!({ "name": "f", "terms": [{ "scope": "inventory", "attribute": "a", "type": "$eq", "value": value }] });
    let made = manage(&running, "POST", filters, filter("first".to_owned()));
    let filter_id = made.header("location").unwrap().rsplit('/').next().unwrap().to_owned();
    let release = "/api/management/v2/deployments/deployments/releases/release-2";
    let configuration = format!("/api/management/v1/deviceconfig/configurations/device/{id}");
    let downloads = "/api/management/v1/deployments/limits/downloads".to_owned();

    type Body<'a> = &'a (dyn Fn(usize) -> Value + Sync);
    let all: [(&str, String, String, Body<'_>); 7] = [
        ("PUT", format!("{roles}/lab"), String::new(), &|number| role(format!("number {number}"))),
        ("PUT", format!("{filters}/{filter_id}"), String::new(), &|number| {
            filter(format!("number {number}"))
        }),
        (
            "PATCH",
            release.to_owned(),
            String::new(),
            &|number| json!({ "notes": format!("number {number}") }),
        ),
        ("PUT", release.to_owned(), "/tags".to_owned(), &|number| json!([format!("number-{number}")])),
        (
            "PUT",
            format!("/api/management/v1/deployments/artifacts/{artifact}"),
            String::new(),
            &|number| json!({ "description": format!("number {number}") }),
        ),
        ("PUT", configuration.clone(), String::new(), &|number| json!({ "n": number.to_string() })),
        ("PUT", downloads, String::new(), &|number| json!({ "in_flight": number + 1 })),
    ];
    for (method, shown, behind, body) in &all {
        let path = format!("{shown}{behind}");
        let first = tag_of(&running, shown);
        let mut statuses = at_once(2, |number| change(&running, method, &path, Some(&first), &body(number)));
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 412], "{path}");
        let second = tag_of(&running, shown);
        assert_ne!(second, first, "{path}");
        assert_eq!(change(&running, method, &path, Some(&first), &body(2)), 412, "{path}");
        assert_eq!(tag_of(&running, shown), second, "{path}: nothing was changed");
        assert_eq!(change(&running, method, &path, Some(&second), &body(3)), 204, "{path}");
        // Several headers are one list; what is no text names nothing.
        let token = format!("Bearer {}", running.management_token());
        let with = |tags: &[&str], number| {
            let mut headers = vec![("Authorization", token.as_str())];
            headers.extend(tags.iter().map(|tag| ("If-Match", *tag)));
            request(&running, method, &path, &headers, body(number).to_string().as_bytes()).status
        };
        let third = tag_of(&running, shown);
        assert_eq!((with(&["\"é\""], 6), with(&["\"x\"", "\"y\""], 6)), (412, 412), "{path}");
        assert_eq!(with(&["\"x\"", &third], 6), 204, "{path}");
        assert_eq!(change(&running, method, &path, Some("*"), &body(4)), 204, "{path}");
        assert_eq!(change(&running, method, &path, None, &body(5)), 204, "{path}");
    }
    for (method, path) in [
        ("PUT", format!("{roles}/none")),
        ("PUT", format!("{filters}/00000000-0000-4000-8000-000000000000")),
        ("PATCH", release.replace("release-2", "none")),
        ("PUT", format!("{}/tags", release.replace("release-2", "none"))),
        ("PUT", configuration.replace(&id, "00000000-0000-4000-8000-000000000000")),
    ] {
        let body = match path.rsplit('/').next() {
            Some("tags") => json!(["a"]),
            _ if path.starts_with(roles) => role("x".to_owned()),
            _ if path.starts_with(filters) => filter("x".to_owned()),
            _ => json!({ "notes": "x" }),
        };
        assert_eq!(change(&running, method, &path, Some("\"x\""), &body), 404, "{path}");
    }
    // A number is the same whenever it is read: it comes from the store as it went there.
    let settings = "/api/management/v1/useradm/settings";
    let numbers = json!({ "small": 6.257072455454142e-16, "others": [0.1, 1e23, 2.2250738585072014e-308, 8.988465674311579e307] });
    assert_eq!(change(&running, "POST", settings, None, &numbers), 201);
    assert_eq!(manage(&running, "GET", settings, Value::Null).json(), numbers);
    let seen = tag_of(&running, settings);
    assert_eq!(change(&running, "POST", settings, Some(&seen), &numbers), 201);
    // What the device says is in nobody's way.
    let seen = tag_of(&running, &configuration);
    let path = "/api/devices/v1/deviceconfig/configuration";
    assert_eq!(device.ask(&running, "PUT", path, "{\"n\":\"5\"}").status, 204);
    assert_eq!(change(&running, "PUT", &configuration, Some(&seen), &json!({ "n": "6" })), 204);
}
