//! The log of what people did.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common::{accepted, error, login, manage, server, server_in};
use crate::users::{USERADM, ask, user};
use serde_json::{Value, json};

const LOGS: &str = "/api/management/v1/auditlogs/logs";

#[test]
fn what_people_do_is_logged_with_who_what_and_when_and_what_is_refused_is_not() {
    let (running, _, folder) = server(|options| options.user("=admin@example.org", "correct horse"));
    let (_, device) = accepted(&running, "a");
    let admin = login(&running, "=admin@example.org:correct horse").text();
    let path = format!("/api/management/v1/inventory/devices/{device}/group");
    assert_eq!(ask(&running, &admin, "PUT", &path, json!({ "group": "lab" })).status, 204);
    let ada = user(&running, "ada@example.org", &[]);
    let again = json!({ "email": "ada@example.org", "password": "correct horse" });
    assert_eq!(error(&manage(&running, "POST", &format!("{USERADM}/users"), again)), 422);
    let gone = format!("/api/management/v2/devauth/devices/{device}");
    assert_eq!(manage(&running, "DELETE", &gone, Value::Null).status, 204);

    running.stop();
    let (running, _) = server_in(folder.path(), |options| options);
    let logs = |query: &str| manage(&running, "GET", &format!("{LOGS}?{query}"), Value::Null).json();
    let actions = |query: &str| -> Vec<String> {
        let found = logs(query);
        found.as_array().unwrap().iter().map(|one| one["action"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(actions("object_type=user"), ["create"]);
    assert_eq!(logs("object_type=user")[0]["object"]["id"], json!(ada));
    assert!(!logs("").to_string().contains("correct horse"), "no secret is in the log");
    let of_device = actions(&format!("object_id={device}&sort=asc"));
    assert_eq!(of_device.last().unwrap(), "decommission");
    assert_eq!(actions("actor_email=%3Dadmin@example.org"), ["update"]);
    assert_eq!(logs("actor_email=%3Dadmin@example.org")[0]["change"], "{\"group\":\"lab\"}");
    assert_eq!(actions("created_after=4000000000"), Vec::<String>::new());
    assert_eq!(actions("created_before=1000"), Vec::<String>::new());
    assert_eq!(error(&manage(&running, "GET", &format!("{LOGS}?created_after=x"), Value::Null)), 400);
    let page = manage(&running, "GET", &format!("{LOGS}?per_page=1"), Value::Null);
    let total: usize = page.header("x-total-count").unwrap().parse().unwrap();
    assert_eq!((page.json().as_array().unwrap().len(), total), (1, logs("").as_array().unwrap().len()));

    let export = manage(&running, "GET", &format!("{LOGS}/export"), Value::Null);
    assert_eq!(export.header("content-type"), Some("text/csv; charset=utf-8"));
    let text = export.text();
    assert_eq!(text.lines().count(), total + 1, "{text}");
    // An address that a spreadsheet would take for a formula.
    assert!(text.contains("\"'=admin@example.org\"") && !text.contains("\"=admin"), "{text}");
}
