//! Roles: what people with some may do, and what not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common::{accepted, artifact, error, manage, server};
use crate::users::{USERADM, ask, token, user};
use serde_json::{Value, json};

const ROLES: &str = "/api/management/v2/useradm/roles";
const INVENTORY: &str = "/api/management/v1/inventory";

#[test]
fn who_has_a_role_may_do_what_it_says_and_nothing_else() {
    let (running, _, _folder) = server(|options| options);
    let (_, device) = accepted(&running, "a");
    user(&running, "read@example.org", &["RBAC_ROLE_OBSERVER"]);
    let reader = token(&running, "read@example.org");
    let get = |path: &str| ask(&running, &reader, "GET", path, Value::Null).status;
    assert_eq!(get(&format!("{INVENTORY}/devices/{device}")), 200);
    assert_eq!(get(&format!("{USERADM}/users/me")), 200);
    let search = "/api/management/v2/devauth/devices/search";
    let found = ask(&running, &reader, "POST", search, json!({ "id": [device] }));
    assert_eq!((found.status, found.json()[0]["id"].as_str()), (200, Some(&*device)));
    assert_eq!(get(&format!("{USERADM}/users")), 403);
    assert_eq!(get("/api/management/v1/auditlogs/logs"), 403);
    let refused = ask(
        &running,
        &reader,
        "DELETE",
        &format!("/api/management/v2/devauth/devices/{device}"),
        Value::Null,
    );
    assert_eq!(error(&refused), 403);
    let me = json!({ "roles": ["RBAC_ROLE_PERMIT_ALL"] });
    assert_eq!(error(&ask(&running, &reader, "PUT", &format!("{USERADM}/users/me"), me)), 403);
    assert_eq!(manage(&running, "GET", &format!("{INVENTORY}/devices/{device}"), Value::Null).status, 200);
}

/// A role of these sets for everything, with the name `people`.
#[track_caller]
pub(crate) fn managers(running: &server_core::Running, sets: &[&str]) {
    let sets: Vec<Value> = sets.iter().map(|name| json!({ "name": name })).collect();
    let role = json!({ "name": "people", "permission_sets_with_scope": sets });
    assert_eq!(manage(running, "POST", ROLES, role).status, 201);
}

#[test]
fn who_manages_people_cannot_make_somebody_who_may_more() {
    let (running, _, _folder) = server(|options| options);
    managers(&running, &["ManageUsers", "ReadDevices", "ReadReleases"]);
    let admin = user(&running, "admin@example.org", &[]);
    let own = user(&running, "people@example.org", &["people"]);
    let manager = token(&running, "people@example.org");
    let put = |path: &str, body: Value| ask(&running, &manager, "PUT", path, body).status;
    let post = |path: &str, body: Value| ask(&running, &manager, "POST", path, body).status;
    let new =
        |roles: Value| json!({ "email": "new@example.org", "password": "correct horse", "roles": roles });
    let users = format!("{USERADM}/users");
    assert_eq!(post(&users, new(json!([]))), 403);
    assert_eq!(post(&users, new(json!(["RBAC_ROLE_PERMIT_ALL"]))), 403);
    assert_eq!(put(&format!("{users}/{own}"), json!({ "roles": [] })), 403);
    assert_eq!(put(&format!("{users}/{admin}"), json!({ "email": "mine@example.org" })), 403);
    let all = json!({ "name": "all", "permission_sets_with_scope": [{ "name": "SuperUser" }] });
    assert_eq!(post(ROLES, all), 403);
    // Nor what is less than everything, and more than their own.
    let deployer = user(&running, "deploy@example.org", &["RBAC_ROLE_DEPLOYMENTS_MANAGER"]);
    assert_eq!(post(&users, new(json!(["RBAC_ROLE_CI"]))), 403);
    assert_eq!(post(&users, new(json!(["RBAC_ROLE_OBSERVER", "RBAC_ROLE_CI"]))), 403);
    for roles in [json!(["people", "RBAC_ROLE_CI"]), json!(["RBAC_ROLE_OBSERVER"])] {
        assert_eq!(put(&format!("{users}/{own}"), json!({ "roles": roles })), 403, "their own: {roles}");
        assert_eq!(put(&format!("{users}/me"), json!({ "roles": roles })), 403, "their own: {roles}");
    }
    assert_eq!(put(&format!("{users}/{deployer}"), json!({ "email": "mine@example.org" })), 403);
    assert_eq!(put(&format!("{users}/{deployer}"), json!({ "roles": ["RBAC_ROLE_OBSERVER"] })), 403);
    let of = |sets: Value| json!({ "name": "more", "permission_sets_with_scope": sets });
    let scope = json!({ "type": "DeviceGroups", "value": ["lab"] });
    assert_eq!(post(ROLES, of(json!([{ "name": "ManageDevices", "scope": scope }]))), 403);
    assert_eq!(put(&format!("{ROLES}/people"), of(json!([{ "name": "ManageDevices" }]))), 403);
    assert_eq!(post(ROLES, of(json!([{ "name": "ReadDevices", "scope": scope }]))), 201);
    assert_eq!(put(&format!("{ROLES}/more"), of(json!([{ "name": "ReadAuditLogs" }]))), 403);
    assert_eq!(put(&format!("{ROLES}/more"), of(json!([{ "name": "ReadReleases" }]))), 204);
    assert_eq!(post(&users, new(json!(["RBAC_ROLE_OBSERVER", "more"]))), 201);
}

#[test]
fn a_role_for_a_group_is_for_its_devices_only() {
    let (running, _, _folder) = server(|options| options);
    let ((_, mine), (_, other)) = (accepted(&running, "a"), accepted(&running, "b"));
    for (device, group) in [(&mine, "lab"), (&other, "field")] {
        let path = format!("{INVENTORY}/devices/{device}/group");
        assert_eq!(manage(&running, "PUT", &path, json!({ "group": group })).status, 204);
    }
    let scope = json!({ "type": "DeviceGroups", "value": ["lab"] });
    let sets =
        json!([{ "name": "ReadDevices", "scope": scope }, { "name": "ManageDevices", "scope": scope }]);
    let role = json!({ "name": "lab", "permission_sets_with_scope": &sets });
    assert_eq!(manage(&running, "POST", ROLES, role.clone()).status, 201);
    assert_eq!(error(&manage(&running, "POST", ROLES, role)), 409);
    user(&running, "lab@example.org", &["lab"]);
    let token = token(&running, "lab@example.org");
    let me = format!("{USERADM}/users/me");
    let own = |token: &str| ask(&running, token, "GET", &me, Value::Null).json();
    assert_eq!(own(&token)["rust_ota"]["permission_sets_with_scope"], sets);
    assert!(own(running.management_token()).get("rust_ota").is_none(), "who may everything is not limited");
    let get = |path: &str| ask(&running, &token, "GET", path, Value::Null).status;
    assert_eq!(get(&format!("{INVENTORY}/devices/{mine}")), 200);
    assert_eq!(get(&format!("{INVENTORY}/devices/{other}")), 403);
    assert_eq!(get(&format!("{INVENTORY}/devices?group=lab")), 200);
    assert_eq!(get(&format!("{INVENTORY}/devices?group=field")), 403);
    // No list of everything: it would show what is not theirs.
    assert_eq!(get(&format!("{INVENTORY}/devices")), 403);
    let search = |filters: Value| {
        ask(
            &running,
            &token,
            "POST",
            "/api/management/v2/inventory/filters/search",
            json!({ "filters": filters }),
        )
        .status
    };
    assert_eq!(search(json!([])), 403);
    assert_eq!(
        search(json!([{ "scope": "system", "attribute": "group", "type": "$eq", "value": "lab" }])),
        200
    );
    // A device goes into and out of groups of theirs only.
    let put = |device: &str, group: &str| {
        let path = format!("{INVENTORY}/devices/{device}/group");
        ask(&running, &token, "PUT", &path, json!({ "group": group })).status
    };
    let out = |device: &str, group: &str| {
        let path = format!("{INVENTORY}/devices/{device}/group/{group}");
        ask(&running, &token, "DELETE", &path, Value::Null).status
    };
    assert_eq!((put(&mine, "field"), put(&other, "lab"), put(&other, "field")), (403, 403, 403));
    assert_eq!((out(&other, "field"), out(&other, "lab"), out(&mine, "field")), (403, 403, 403));
    let group = |device: &str| {
        let path = format!("{INVENTORY}/devices/{device}/group");
        manage(&running, "GET", &path, Value::Null).json()["group"].as_str().map(str::to_owned)
    };
    assert_eq!((group(&mine).as_deref(), group(&other).as_deref()), (Some("lab"), Some("field")));
    assert_eq!((put(&mine, "lab"), out(&mine, "lab"), group(&mine)), (204, 204, None));
    let back =
        manage(&running, "PUT", &format!("{INVENTORY}/devices/{mine}/group"), json!({ "group": "lab" }));
    assert_eq!(back.status, 204);
    // A role that somebody has stays: another one of that name would be theirs at once. One that allows nothing allows nothing,
    // and does not leave somebody without roles, who may do everything.
    assert_eq!(manage(&running, "DELETE", &format!("{ROLES}/lab"), Value::Null).status, 409);
    assert_eq!(get(&format!("{INVENTORY}/devices/{mine}")), 200);
    let nothing = json!({ "permission_sets_with_scope": [] });
    assert_eq!(manage(&running, "PUT", &format!("{ROLES}/lab"), nothing).status, 204);
    assert_eq!(get(&format!("{INVENTORY}/devices/{mine}")), 403);
}

#[test]
fn who_manages_people_does_not_remove_those_who_may_do_everything() {
    let (running, _, _folder) = server(|options| options);
    managers(&running, &["ManageUsers", "ReadDevices", "ReadReleases"]);
    let all = json!({ "name": "all", "permission_sets_with_scope": [{ "name": "SuperUser" }] });
    assert_eq!(manage(&running, "POST", ROLES, all).status, 201);
    let admin = user(&running, "admin@example.org", &[]);
    let reader = user(&running, "reader@example.org", &["RBAC_ROLE_OBSERVER"]);
    user(&running, "people@example.org", &["people"]);
    let token = token(&running, "people@example.org");
    let remove = |path: &str| ask(&running, &token, "DELETE", path, Value::Null).status;
    assert_eq!(remove(&format!("/api/management/v1/useradm/users/{admin}")), 403);
    assert_eq!(remove(&format!("{ROLES}/all")), 403);
    let deployer = user(&running, "deploy@example.org", &["RBAC_ROLE_DEPLOYMENTS_MANAGER"]);
    assert_eq!(remove(&format!("/api/management/v1/useradm/users/{deployer}")), 403);
    assert_eq!(remove(&format!("/api/management/v1/useradm/users/{reader}")), 204);
}

#[test]
fn roles_are_listed_changed_and_refused_when_they_make_no_sense() {
    let (running, _, _folder) = server(|options| options);
    let listed = manage(&running, "GET", ROLES, Value::Null).json();
    assert_eq!(listed.as_array().unwrap().len(), 5);
    let sets = manage(&running, "GET", "/api/management/v2/useradm/permission_sets", Value::Null).json();
    assert_eq!(sets.as_array().unwrap().len(), 14);
    let tags = json!({ "type": "ReleaseTags", "value": ["x"] });
    for (body, status) in [
        (json!({ "name": "", "permission_sets_with_scope": [] }), 422),
        (json!({ "name": "x", "permission_sets_with_scope": [{ "name": "Nothing" }] }), 400),
        (
            json!({ "name": "x", "permission_sets_with_scope": [{ "name": "ReadDevices", "scope": tags }] }),
            422,
        ),
        (json!({ "name": "RBAC_ROLE_CI" }), 409),
        (json!({ "name": "x y", "description": "a" }), 201),
    ] {
        assert_eq!(manage(&running, "POST", ROLES, body.clone()).status, status, "{body}");
    }
    let path = format!("{ROLES}/x%20y");
    assert_eq!(manage(&running, "PUT", &path, json!({ "description": "b" })).status, 204);
    assert_eq!(manage(&running, "GET", &path, Value::Null).json()["description"], "b");
    for method in ["PUT", "DELETE"] {
        let answer = manage(&running, method, &format!("{ROLES}/RBAC_ROLE_CI"), json!({}));
        assert_eq!(error(&answer), 422, "{method}");
    }
    assert_eq!(error(&manage(&running, "DELETE", &format!("{ROLES}/none"), Value::Null)), 404);
}

#[test]
fn a_role_for_a_group_deploys_to_what_the_body_names_of_it_only() {
    let (running, management, _folder) = server(|options| options);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let ((_, mine), (_, other)) = (accepted(&running, "a"), accepted(&running, "b"));
    for (device, group) in [(&mine, "lab"), (&other, "field")] {
        management.set_group(device, group).unwrap();
    }
    let scope = json!({ "type": "DeviceGroups", "value": ["lab"] });
    let role = json!({
        "name": "lab", "permission_sets_with_scope": [{ "name": "DeployToDevices", "scope": scope }],
    });
    assert_eq!(manage(&running, "POST", ROLES, role).status, 201);
    user(&running, "lab@example.org", &["lab"]);
    let token = token(&running, "lab@example.org");
    let deployments = "/api/management/v1/deployments/deployments";
    for (body, status) in [
        (json!({ "group": "lab" }), 201),
        (json!({ "devices": [mine], "group": null }), 201),
        (json!({ "group": "field" }), 403),
        (json!({ "group": ["lab"] }), 403),
        (json!({ "group": "lab", "all_devices": true }), 403),
        (json!({ "group": "lab", "devices": [mine] }), 403),
        (json!({ "group": "lab", "filter_id": "x" }), 403),
        (json!({ "devices": [mine, other] }), 403),
        (json!({ "devices": [] }), 403),
        (json!({ "all_devices": true }), 403),
        (json!({}), 403),
    ] {
        // Of two that are equal but for this the second one is refused.
        let mut order = json!({ "name": body.to_string(), "artifact_name": "release-2" });
        order.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let answer = ask(&running, &token, "POST", deployments, order.clone());
        assert_eq!(answer.status, status, "{order}: {}", answer.text());
        let dry = ask(&running, &token, "POST", &format!("{deployments}/dry_run"), order.clone());
        assert_eq!(dry.status == 403, status == 403, "{order}: {}", dry.text());
    }
}
