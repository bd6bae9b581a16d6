//! What the reference server's own tests and clients expect: one test for each line of the table in
//! `docs/server-api.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common::{
    Answer, Device, accepted, artifact, artifact_with, authenticate, deployed, error, manage, raw, request,
    server,
};
use artifact::write::{self, ArtifactSpec, MetaData};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use server_core::Running;
use server_core::client::FrameStream;

const DEVAUTH: &str = "/api/management/v2/devauth";
const DEPLOYMENTS: &str = "/api/management/v1/deployments/deployments";
const ARTIFACTS: &str = "/api/management/v1/deployments/artifacts";
const INVENTORY: &str = "/api/management/v1/inventory";
const SEARCH: &str = "/api/management/v2/inventory/filters/search";
const CONFIGURATIONS: &str = "/api/management/v1/deviceconfig/configurations/device";
const DEVICES: &str = "/api/devices/v1/deployments/device/deployments";

fn get(running: &Running, path: &str) -> Answer {
    manage(running, "GET", path, Value::Null)
}

/// One field of each entry of a list.
fn each(running: &Running, path: &str, field: &str) -> Vec<String> {
    let answer = get(running, path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    let list = answer.json();
    list.as_array().unwrap().iter().map(|entry| entry[field].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn refuses(running: &Running, method: &str, path: &str, body: Value, status: u16, words: &str) {
    let answer = manage(running, method, path, body);
    assert_eq!(error(&answer), status, "{path}: {}", answer.text());
    assert!(answer.json()["error"].as_str().unwrap().contains(words), "{path}: {}", answer.text());
}

fn tell(running: &Running, device: &Device, attributes: Value) {
    let path = "/api/devices/v1/inventory/device/attributes";
    assert_eq!(device.ask(running, "PUT", path, &attributes.to_string()).status, 200);
}

#[test]
fn a_deployment_with_a_field_that_is_not_built_is_refused_by_name_everywhere_and_not_made() {
    let (running, management, _folder) = server(|options| options);
    let (_, id) = accepted(&running, "a");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    management.set_group(&id, "east").unwrap();
    let fields =
        [("filter_version", json!(1), json!(null)), ("force_instalation", json!(true), json!(false))];
    let places = [
        (DEPLOYMENTS.to_owned(), json!({ "devices": [id] })),
        ("/api/management/v2/deployments/deployments".to_owned(), json!({ "all_devices": true })),
        (format!("{DEPLOYMENTS}/group/east"), json!({})),
        (format!("{CONFIGURATIONS}/{id}/deploy"), Value::Null),
    ];
    for (path, target) in &places {
        for (field, restricting, nothing) in &fields {
            let body = |value: &Value| {
                let mut body = json!({});
                if let Some(target) = target.as_object() {
                    body = json!({ "name": format!("{path} {field}"), "artifact_name": "release-2" });
                    body.as_object_mut().unwrap().extend(target.clone());
                }
                body[*field] = value.clone();
                body
            };
            let count = || management.deployments().unwrap().len();
            let before = count();
            refuses(&running, "POST", path, body(restricting), 422, field);
            assert_eq!(count(), before, "{path} {field}");
            // What asks for nothing is no reason to refuse.
            let made = manage(&running, "POST", path, body(nothing));
            assert!(made.status == 201 || made.status == 200, "{path} {field}: {}", made.text());
            assert_eq!(count(), before + 1, "{path} {field}");
        }
    }
}

#[test]
fn a_key_that_is_none_is_refused_in_the_words_of_the_reference_server() {
    let (running, _, _folder) = server(|options| options);
    let device = Device::new("a");
    let body = json!({ "id_data": "{\"mac\":\"a\"}", "pubkey": "none" }).to_string();
    let signature = STANDARD.encode(device.key.sign(body.as_bytes()));
    let answer = authenticate(&running, body.as_bytes(), &signature);
    assert_eq!(answer.json()["error"], "invalid auth request: cannot decode public key");
    let body = json!({ "identity_data": { "mac": "a" }, "pubkey": "none" });
    refuses(&running, "POST", &format!("{DEVAUTH}/devices"), body, 400, "cannot decode public key");
}

#[test]
fn devices_are_listed_by_status_and_then_by_id() {
    let (running, management, _folder) = server(|options| options);
    for mac in ["a", "b", "c", "d", "e", "f"] {
        Device::new(mac).authenticate(&running);
    }
    let ids = each(&running, &format!("{DEVAUTH}/devices"), "id");
    assert!(ids.is_sorted());
    management.accept(&ids[4]).unwrap();
    management.accept(&ids[2]).unwrap();
    management.reject(&ids[0]).unwrap();
    let expected = [&ids[2], &ids[4], &ids[1], &ids[3], &ids[5], &ids[0]];
    assert_eq!(each(&running, &format!("{DEVAUTH}/devices"), "id"), expected.map(String::clone));
}

#[test]
fn a_status_that_devices_cannot_have_is_400() {
    let (running, _, _folder) = server(|options| options);
    for path in ["devices?status=foo", "devices/count?status=foo", "devices?status=accepted&status=foo"] {
        refuses(&running, "GET", &format!("{DEVAUTH}/{path}"), Value::Null, 400, "status");
    }
    refuses(
        &running,
        "POST",
        &format!("{DEVAUTH}/devices/search"),
        json!({ "status": "foo" }),
        400,
        "status",
    );
}

#[test]
fn devices_are_searched_by_several_statuses() {
    let (running, management, _folder) = server(|options| options);
    accepted(&running, "a");
    Device::new("b").authenticate(&running);
    Device::new("c").authenticate(&running);
    let rejected = management.devices().unwrap().pop().unwrap();
    management.reject(&rejected.id).unwrap();
    let found = |status: Value| {
        let answer =
            manage(&running, "POST", &format!("{DEVAUTH}/devices/search"), json!({ "status": status }));
        answer.json().as_array().unwrap().len()
    };
    assert_eq!(
        (found(json!(["accepted", "pending"])), found(json!("rejected")), found(json!([]))),
        (2, 1, 0)
    );
    assert_eq!(each(&running, &format!("{DEVAUTH}/devices?status=accepted&status=rejected"), "id").len(), 2);
}

#[test]
fn a_device_that_has_lost_its_last_key_stays_and_one_that_never_came_goes() {
    let (running, management, _folder) = server(|options| options);
    let (mut device, id) = accepted(&running, "a");
    let dismiss = |id: &str| {
        let device = management.devices().unwrap().into_iter().find(|device| device.id == id).unwrap();
        let path = format!("{DEVAUTH}/devices/{id}/auth/{}", device.auth_sets[0].id);
        assert_eq!(manage(&running, "DELETE", &path, Value::Null).status, 204);
        get(&running, &format!("{DEVAUTH}/devices/{id}"))
    };
    let left = dismiss(&id).json();
    assert_eq!((&left["status"], &left["auth_sets"]), (&json!("noauth"), &json!([])));
    assert_eq!(each(&running, &format!("{DEVAUTH}/devices?status=noauth"), "id"), std::slice::from_ref(&id));
    // Its key is one that nobody has decided about now.
    assert_eq!(device.next(&running).status, 401);
    assert_eq!(device.authenticate(&running).status, 401);
    assert_eq!(get(&running, &format!("{DEVAUTH}/devices/{id}")).json()["status"], "pending");
    let expected = management.preauthorize(&json!({ "mac": "b" }), &Device::new("b").pem()).unwrap();
    assert_eq!(error(&dismiss(&expected)), 404);
}

#[test]
fn a_rejected_key_can_be_pending_again() {
    let (running, management, _folder) = server(|options| options);
    Device::new("a").authenticate(&running);
    let device = management.devices().unwrap().remove(0);
    management.reject(&device.id).unwrap();
    let path = format!("{DEVAUTH}/devices/{}/auth/{}/status", device.id, device.auth_sets[0].id);
    assert_eq!(manage(&running, "PUT", &path, json!({ "status": "pending" })).status, 204);
    assert_eq!(
        get(&running, &format!("{DEVAUTH}/devices/count?status=pending")).json(),
        json!({ "count": 1 })
    );
}

#[test]
fn no_limit_is_minus_one() {
    let limit = |most| {
        let (running, _, _folder) = server(|options| options.max_devices(most));
        get(&running, &format!("{DEVAUTH}/limits/max_devices")).json()
    };
    assert_eq!((limit(0), limit(7)), (json!({ "limit": -1 }), json!({ "limit": 7 })));
}

#[test]
fn a_list_of_devices_is_filtered_by_any_attribute() {
    let (running, _, _folder) = server(|options| options);
    let mut ids = Vec::new();
    for (mac, users) in [("a", 100), ("b", 5)] {
        let (device, id) = accepted(&running, mac);
        let said = json!([
            { "name": "mac_eth0", "value": format!("02:{mac}") }, { "name": "users", "value": users },
            { "name": "status", "value": "rejected" }, { "name": "ip", "value": ["10.0.0.1", mac] },
        ]);
        tell(&running, &device, said);
        ids.push(id);
    }
    let found = |query: &str| each(&running, &format!("{INVENTORY}/devices?{query}"), "id");
    assert_eq!(found("mac_eth0=02%3Aa"), ids[..1]);
    assert_eq!(found("mac=b"), ids[1..], "what names a device");
    assert_eq!(found("users=100"), ids[..1]);
    assert_eq!(found("users=100.0&ip=10.0.0.1"), ids[..1]);
    assert_eq!(found("ip=10.0.0.1").len(), 2);
    assert_eq!(found("users=100&mac=b"), Vec::<String>::new());
    assert_eq!(found("colour=red"), Vec::<String>::new());
    // What a device says of itself does not pass for what was decided.
    assert_eq!((found("status=rejected").len(), found("status=accepted").len()), (0, 2));
    refuses(&running, "GET", &format!("{INVENTORY}/devices?has_group=maybe"), Value::Null, 400, "has_group");
}

#[test]
fn a_list_of_devices_is_sorted_by_attributes() {
    let (running, _, _folder) = server(|options| options);
    for (mac, site, cpus) in [("a", "x", 2), ("b", "y", 4), ("c", "x", 8)] {
        let (device, _) = accepted(&running, mac);
        tell(
            &running,
            &device,
            json!([{ "name": "site", "value": site }, { "name": "cpus", "value": cpus }]),
        );
    }
    accepted(&running, "d");
    let sorted = |sort: &str| {
        let list = get(&running, &format!("{INVENTORY}/devices?sort={sort}")).json();
        let macs = list
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["identities"][0].as_str().unwrap().to_owned());
        macs.collect::<String>()
    };
    assert_eq!((sorted("cpus:asc"), sorted("cpus:desc")), ("dabc".to_owned(), "cbad".to_owned()));
    assert_eq!(sorted("site:desc,cpus:desc"), "bcad");
    assert_eq!(sorted("mac"), "abcd");
    refuses(&running, "GET", &format!("{INVENTORY}/devices?sort=cpus:up"), Value::Null, 400, "sort");
}

#[test]
fn a_scope_that_there_is_not_is_400() {
    let (running, _, _folder) = server(|options| options);
    let one = |scope: &str| json!({ "scope": scope, "attribute": "a", "type": "$eq", "value": "b" });
    for place in ["filters", "sort", "attributes"] {
        refuses(&running, "POST", SEARCH, json!({ place: [one("inventry")] }), 400, "scope");
        for scope in ["system", "identity", "inventory", "monitor", "tags"] {
            assert_eq!(manage(&running, "POST", SEARCH, json!({ place: [one(scope)] })).status, 200);
        }
    }
    let sort = json!({ "sort": [{ "scope": "inventory", "attribute": "a", "order": "up" }] });
    refuses(&running, "POST", SEARCH, sort, 400, "sort");
}

#[test]
fn a_search_gives_attributes_as_they_were_sent() {
    let (running, _, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    tell(&running, &device, json!([{ "name": "site", "value": "x" }]));
    let wanted = json!({ "attributes": [{ "scope": "inventory", "attribute": "site" }] });
    let found = manage(&running, "POST", SEARCH, wanted).json();
    assert_eq!(found[0]["attributes"], json!([{ "name": "site", "value": "x", "scope": "inventory" }]));
    assert_eq!(found[0]["identities"], json!(["a"]));
    let listed = get(&running, &format!("{INVENTORY}/devices/{id}")).json();
    let site = listed["attributes"].as_array().unwrap().iter().find(|one| one["name"] == "site").unwrap();
    assert!(site["timestamp"].is_string(), "{site}");
}

#[test]
fn less_and_not_equal_is_a_filter() {
    let (running, _, _folder) = server(|options| options);
    for (mac, cpus) in [("a", 2), ("b", 4)] {
        let (device, _) = accepted(&running, mac);
        tell(&running, &device, json!([{ "name": "cpus", "value": cpus }]));
    }
    let filter = json!({ "scope": "inventory", "attribute": "cpus", "type": "$ltne", "value": 4 });
    let found = manage(&running, "POST", SEARCH, json!({ "filters": [filter] })).json();
    assert_eq!(found[0]["identities"], json!(["a"]));
    assert_eq!(found.as_array().unwrap().len(), 1);
}

#[test]
fn an_identity_does_not_pass_for_a_decision() {
    let (running, _, _folder) = server(|options| options);
    let mut device = Device::new("a");
    device.identity = json!({ "mac": "a", "status": "accepted" });
    assert_eq!(device.authenticate(&running).status, 401);
    let accepted = json!({ "scope": "identity", "attribute": "status", "type": "$eq", "value": "accepted" });
    assert_eq!(manage(&running, "POST", SEARCH, json!({ "filters": [accepted] })).json(), json!([]));
    assert_eq!(get(&running, &format!("{INVENTORY}/devices?status=accepted")).json(), json!([]));
}

#[test]
fn an_artifact_shows_what_it_depends_on_as_it_is_written() {
    let (running, management, _folder) = server(|options| options);
    let file = artifact_with("release-2", "arm1", 100, |spec| {
        spec.depends.insert("key1".to_owned(), "value1".to_owned());
        spec.depends_names = vec!["release-1".to_owned()];
    });
    let id = management.upload_artifact(file.path()).unwrap();
    let shown = get(&running, &format!("{ARTIFACTS}/{id}")).json();
    let depends = json!({ "device_type": ["arm1"], "key1": "value1", "artifact_name": ["release-1"] });
    assert_eq!(shown["artifact_depends"], depends);
}

#[test]
fn an_artifact_without_files_has_null_and_without_meta_data_nothing() {
    let (running, management, _folder) = server(|options| options);
    let upload = |spec: &ArtifactSpec| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write::write(spec, &[], None, &mut tempfile::tempfile().unwrap(), &mut file).unwrap();
        let id = management.upload_artifact(file.path()).unwrap();
        get(&running, &format!("{ARTIFACTS}/{id}")).json()["updates"][0].clone()
    };
    let types = vec!["testdev".parse().unwrap()];
    let bootstrap = upload(&ArtifactSpec::bootstrap("release-1".parse().unwrap(), types.clone()));
    assert_eq!((&bootstrap["files"], bootstrap.get("meta_data")), (&Value::Null, None));
    let mut module = ArtifactSpec::module_image("module-1".parse().unwrap(), types, "thing".parse().unwrap());
    module.meta_data = MetaData::Json("{\"a\":1}".to_owned());
    assert_eq!(upload(&module)["meta_data"], json!({ "a": 1 }));
}

#[test]
fn an_id_that_is_no_uuid_is_400_and_one_that_is_unknown_404() {
    let (running, _, _folder) = server(|options| options);
    for rest in ["", "/download"] {
        refuses(&running, "GET", &format!("{ARTIFACTS}/foo{rest}"), Value::Null, 400, "UUID");
    }
    refuses(&running, "DELETE", &format!("{ARTIFACTS}/foo"), Value::Null, 400, "UUID");
    refuses(&running, "PUT", &format!("{ARTIFACTS}/foo"), json!({ "description": "" }), 400, "UUID");
    for rest in ["", "/statistics", "/devices", "/devices/list", "/device_list", "/devices/a/log"] {
        refuses(&running, "GET", &format!("{DEPLOYMENTS}/foo{rest}"), Value::Null, 400, "UUID");
    }
    refuses(
        &running,
        "PUT",
        &format!("{DEPLOYMENTS}/foo/status"),
        json!({ "status": "aborted" }),
        400,
        "UUID",
    );
    let unknown = "f5b7c3a0-1111-1111-8000-000000000000";
    for path in [format!("{ARTIFACTS}/{unknown}"), format!("{DEPLOYMENTS}/{unknown}")] {
        assert_eq!(error(&get(&running, &path)), 404);
    }
}

#[test]
fn artifacts_are_sorted_and_filtered() {
    let (running, management, _folder) = server(|options| options);
    let mut ids = Vec::new();
    for (name, kind, bytes) in [("b", "arm1-a", 100), ("c", "arm2", 40_000), ("a", "arm1-b", 20_000)] {
        ids.push(management.upload_artifact(artifact_with(name, kind, bytes, |_| {}).path()).unwrap());
    }
    for (id, text) in ids.iter().zip(["foo-1", "foo-2", "bar"]) {
        let path = format!("{ARTIFACTS}/{id}");
        assert_eq!(manage(&running, "PUT", &path, json!({ "description": text })).status, 204);
    }
    for version in ["v1/deployments/artifacts", "v1/deployments/artifacts/list", "v2/deployments/artifacts"] {
        let names =
            |query: &str| each(&running, &format!("/api/management/{version}?{query}"), "name").concat();
        assert_eq!(names(""), "abc", "by name");
        assert_eq!((names("sort=name:asc"), names("sort=name:desc")), ("abc".to_owned(), "cba".to_owned()));
        assert_eq!(names("sort=size:desc"), "cab");
        let times = |order: &str| {
            each(&running, &format!("/api/management/{version}?sort=modified:{order}"), "modified")
        };
        assert!(times("asc").is_sorted() && times("desc").iter().rev().is_sorted());
        assert_eq!(names("description=foo-2"), "c");
        assert_eq!(names("description=foo-*"), "bc");
        assert_eq!(names("description=foo"), "");
        assert_eq!(names("device_type=arm1-*"), "ab");
        assert_eq!(names("device_type=arm2"), "c");
        assert_eq!(names("name=a&name=c"), "ac");
        let bad = |query: &str| {
            refuses(&running, "GET", &format!("/api/management/{version}?{query}"), Value::Null, 400, "");
        };
        bad("name=a*&name=c");
        bad("sort=colour:asc");
        bad("sort=name:up");
    }
}

#[test]
fn no_devices_are_not_a_group_and_not_all_devices() {
    let (running, management, _folder) = server(|options| options);
    let (_, id) = accepted(&running, "a");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    management.set_group(&id, "g0").unwrap();
    let body = json!({ "name": "n", "artifact_name": "release-2", "devices": [], "group": "g0" });
    refuses(&running, "POST", DEPLOYMENTS, body.clone(), 400, "devices");
    let none = json!({ "name": "n", "artifact_name": "release-2", "devices": [] });
    refuses(&running, "POST", DEPLOYMENTS, none.clone(), 400, "devices");
    assert_eq!(manage(&running, "POST", &format!("{DEPLOYMENTS}/group/g0"), none).status, 201);
}

#[test]
fn a_deployment_for_a_device_that_would_never_come_is_refused() {
    let (running, management, _folder) = server(|options| options);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    Device::new("a").authenticate(&running);
    let pending = management.devices().unwrap().remove(0).id;
    for device in ["none", pending.as_str()] {
        let body = json!({ "name": "n", "artifact_name": "release-2", "devices": [device] });
        refuses(&running, "POST", DEPLOYMENTS, body, 422, device);
    }
}

#[test]
fn a_deployment_counts_the_bytes_that_its_devices_were_given() {
    let (running, management, _folder, device, _, deployment) = deployed();
    let total =
        || get(&running, &format!("{DEPLOYMENTS}/{deployment}")).json()["statistics"]["total_size"].clone();
    assert_eq!(total(), 0);
    assert_eq!(device.next(&running).status, 200);
    let artifact = management.artifacts().unwrap().remove(0);
    assert_eq!(total(), artifact["size"]);
    device.report(&running, &deployment, "success");
    management.delete_artifact(artifact["id"].as_str().unwrap()).unwrap();
    assert_eq!(total(), artifact["size"], "also when it is gone");
}

#[test]
fn a_device_that_has_it_already_says_what_it_has() {
    let (running, _, _folder, mut device, _, deployment) = deployed();
    device.artifact_name = "release-2".to_owned();
    assert_eq!(device.next(&running).status, 204);
    let listed = get(&running, &format!("{DEPLOYMENTS}/{deployment}/devices")).json();
    assert_eq!(listed[0]["status"], "already-installed");
    assert!(listed[0]["image"]["size"].as_u64().unwrap() > 0, "{listed}");
    let shown = get(&running, &format!("{DEPLOYMENTS}/{deployment}")).json();
    assert_eq!(shown["statistics"]["total_size"], 0);
}

#[test]
fn a_report_without_a_substate_leaves_the_one_before() {
    let (running, management, _folder, device, _, deployment) = deployed();
    device.next(&running);
    let put = |body: Value| {
        device.ask(&running, "PUT", &format!("{DEVICES}/{deployment}/status"), &body.to_string()).status
    };
    assert_eq!(put(json!({ "status": "downloading", "substate": "half" })), 204);
    for status in ["downloading", "installing", "success"] {
        assert_eq!(put(json!({ "status": status })), 204);
        let known = management.device_deployments(&deployment).unwrap();
        assert_eq!((known[0].status.as_str(), known[0].substate.as_deref()), (status, Some("half")));
    }
}

#[test]
fn a_configuration_says_when_it_was_changed_and_reported() {
    let (running, management, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let shown = management.configuration(&id).unwrap();
    let created = get(&running, &format!("{DEVAUTH}/devices/{id}")).json()["created_ts"].clone();
    assert_eq!((&shown["updated_ts"], shown.get("reported_ts")), (&created, None));
    let path = "/api/devices/v1/deviceconfig/configuration";
    assert_eq!(device.ask(&running, "PUT", path, "{}").status, 204);
    let reported = management.configuration(&id).unwrap();
    assert_eq!(reported["updated_ts"], created);
    assert!(reported["reported_ts"].is_string());
}

#[test]
fn a_configuration_is_deployed_to_a_device_that_has_not_said_its_type_and_is_nobody_s_artifact() {
    let (running, management, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    management.configure(&id, &[("a".to_owned(), "b".to_owned())].into()).unwrap();
    let deployment = management.deploy_configuration(&id).unwrap();
    let offer = device.next(&running);
    assert_eq!(offer.status, 200, "{}", offer.text());
    let offer = offer.json();
    assert_eq!(offer["artifact"]["device_types_compatible"], json!(["testdev"]));
    // Neither listed, nor found, nor deleted.
    let names = ["v1/deployments/artifacts", "v1/deployments/artifacts/list", "v2/deployments/artifacts"];
    for list in names {
        assert_eq!(each(&running, &format!("/api/management/{list}"), "name"), ["release-2"]);
    }
    let path = format!("{ARTIFACTS}/{}", offer["artifact"]["id"].as_str().unwrap());
    assert_eq!(error(&get(&running, &path)), 404);
    assert_eq!(error(&get(&running, &format!("{path}/download"))), 404);
    assert_eq!(error(&manage(&running, "DELETE", &path, Value::Null)), 404);
    assert_eq!(error(&manage(&running, "PUT", &path, json!({ "description": "x" }))), 404);
    let body =
        json!({ "name": "n", "artifact_name": offer["artifact"]["artifact_name"], "all_devices": true });
    refuses(&running, "POST", DEPLOYMENTS, body, 422, "artifact");
    // Of its own type, and with what it brings.
    let shown = get(&running, &format!("{DEPLOYMENTS}/{deployment}")).json();
    assert_eq!((&shown["type"], &shown["configuration"]), (&json!("configuration"), &json!("{\"a\":\"b\"}")));
    // The file goes with the deployment that needed it.
    let uri = offer["artifact"]["source"]["uri"].as_str().unwrap();
    let link = uri[uri.find("/download").unwrap()..].to_owned();
    assert_eq!(request(&running, "GET", &link, &[], b"").status, 200);
    device.report(&running, &deployment, "success");
    management.deploy_configuration(&id).unwrap();
    assert_eq!(error(&request(&running, "GET", &link, &[], b"")), 404);
}

#[test]
fn deployments_are_listed_by_their_type() {
    let (running, management, _folder, _, id, software) = deployed();
    let configuration = management.deploy_configuration(&id).unwrap();
    for version in ["v1", "v2"] {
        let ids = |query: &str| {
            each(&running, &format!("/api/management/{version}/deployments/deployments?{query}"), "id")
        };
        assert_eq!(ids("type=software"), std::slice::from_ref(&software));
        assert_eq!(ids("type=configuration"), std::slice::from_ref(&configuration));
        assert_eq!(ids(""), [configuration.clone(), software.clone()], "the newest first");
        assert_eq!(ids("sort=asc"), [software.clone(), configuration.clone()]);
        assert_eq!(ids("sort=desc&type="), [configuration.clone(), software.clone()]);
    }
}

#[test]
fn a_status_type_or_order_that_deployments_cannot_have_is_400() {
    let (running, _, _folder, _, id, deployment) = deployed();
    for query in ["status=bogus", "type=bogus", "sort=bogus"] {
        refuses(&running, "GET", &format!("{DEPLOYMENTS}?{query}"), Value::Null, 400, "");
    }
    let lists = [
        format!("{DEPLOYMENTS}/{deployment}/devices"),
        format!("{DEPLOYMENTS}/{deployment}/devices/list"),
        format!("{DEPLOYMENTS}/devices/{id}"),
    ];
    for list in lists {
        refuses(&running, "GET", &format!("{list}?status=bogus"), Value::Null, 400, "status");
        for status in ["all", "active", "pending"] {
            assert_eq!(each(&running, &format!("{list}?status={status}"), "id").len(), 1, "{list}");
        }
        for status in ["finished", "pause", "success"] {
            assert_eq!(get(&running, &format!("{list}?status={status}")).json(), json!([]), "{list}");
        }
    }
}

#[test]
fn a_deployment_and_the_artifact_of_its_device_have_the_shapes_of_the_schema() {
    let (running, _, _folder, device, id, deployment) = deployed();
    device.next(&running);
    let second =
        get(&running, "/api/management/v2/deployments/deployments").json().as_array().unwrap()[0].clone();
    for (field, value) in
        [("retries", json!(0)), ("dynamic", json!(false)), ("autogenerate_delta", json!(false))]
    {
        assert_eq!(second[field], value, "{field}");
        assert_eq!(get(&running, &format!("{DEPLOYMENTS}/{deployment}")).json().get(field), None);
    }
    let listed = get(&running, &format!("{DEPLOYMENTS}/{deployment}/devices/list")).json();
    let image = &listed[0]["image"];
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(image), ["id", "meta", "meta_artifact", "modified", "size"]);
    assert_eq!(image["meta"], json!({ "description": "" }));
    let meta_artifact = [
        "artifact_depends",
        "artifact_provides",
        "clears_artifact_provides",
        "device_types_compatible",
        "info",
        "name",
        "signed",
        "updates",
    ];
    assert_eq!(keys(&image["meta_artifact"]), meta_artifact);
    assert_eq!(image["meta_artifact"]["updates"][0]["files"][0]["name"], "rootfs.img");
    let history = get(&running, &format!("{DEPLOYMENTS}/devices/{id}")).json();
    assert_eq!(history[0]["device"]["image"], *image);
}

#[test]
fn keys_of_a_device_name_it_and_an_inventory_has_its_identities_and_a_tag() {
    let (running, _, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let shown = get(&running, &format!("{DEVAUTH}/devices/{id}")).json();
    assert_eq!(shown["auth_sets"][0]["device_id"], *id);
    let path = format!("{INVENTORY}/devices/{id}");
    assert_eq!(get(&running, &path).json()["identities"], json!(["a"]));
    let tag = || get(&running, &path).header("etag").unwrap().to_owned();
    let before = tag();
    assert!(before.starts_with('"') && before == tag(), "{before}");
    tell(&running, &device, json!([{ "name": "site", "value": "x" }]));
    assert_ne!(tag(), before);
}

#[test]
fn a_group_without_devices_is_not_there_and_no_devices_change_none() {
    let (running, management, _folder) = server(|options| options);
    let (_, id) = accepted(&running, "a");
    management.set_group(&id, "g0").unwrap();
    let path = |group: &str| format!("{INVENTORY}/groups/{group}/devices");
    assert_eq!(get(&running, &path("g0")).json(), json!([id]));
    assert_eq!(error(&get(&running, &path("none"))), 404);
    for method in ["PATCH", "DELETE"] {
        refuses(&running, method, &path("g0"), json!([]), 400, "no device");
    }
}

#[test]
fn who_preauthorizes_a_known_device_is_shown_it() {
    let (running, _, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let body = json!({ "identity_data": device.identity, "pubkey": device.pem() });
    let answer = manage(&running, "POST", &format!("{DEVAUTH}/devices"), body);
    assert_eq!((answer.status, &answer.json()["id"]), (409, &json!(id)));
    assert_eq!(answer.json()["auth_sets"][0]["status"], "accepted");
}

#[test]
fn a_session_with_a_device_that_is_not_connected_is_404_and_anything_but_a_websocket_400() {
    let (running, management, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let path = format!("/api/management/v1/deviceconnect/devices/{id}/connect");
    let words = management.connect(&id).unwrap_err().to_string();
    assert!(words.contains("404") && words.contains("device disconnected"), "{words}");
    let not_websocket = "the client is not using the websocket protocol";
    refuses(&running, "GET", &path, Value::Null, 400, not_websocket);
    let answer = device.ask(&running, "GET", "/api/devices/v1/deviceconnect/connect", "");
    assert_eq!((error(&answer), answer.json()["error"].as_str()), (400, Some(not_websocket)));
}

#[test]
fn a_websocket_may_bring_its_token_in_a_cookie_and_nothing_else_may() {
    let (running, _, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let open = |path: &str, cookie: &str| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: here\r\nCookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", running.port())).unwrap();
        std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
        let mut status = [0; 12];
        std::io::Read::read_exact(&mut stream, &mut status).unwrap();
        String::from_utf8_lossy(&status).into_owned()
    };
    let (of_device, of_person) = (
        "/api/devices/v1/deviceconnect/connect".to_owned(),
        format!("/api/management/v1/deviceconnect/devices/{id}/connect"),
    );
    let _connected = FrameStream::open(running.url(), &of_device, &device.token).unwrap();
    // The device has its answer before the server counts it as connected.
    let connection = format!("/api/management/v1/deviceconnect/devices/{id}");
    while manage(&running, "GET", &connection, Value::Null).json()["status"] != "connected" {
        std::thread::yield_now();
    }
    let person = format!("JWT={}", running.management_token());
    let own = format!("theme=dark; JWT={}", device.token);
    assert_eq!(open(&of_person, &person), "HTTP/1.1 101");
    assert_eq!(open(&of_person, &own), "HTTP/1.1 401", "a device is no person");
    assert_eq!(open(&of_device, "JWT=wrong"), "HTTP/1.1 401");
    assert_eq!(open(&of_device, &own), "HTTP/1.1 101");
    let answer = request(&running, "GET", &format!("{DEVAUTH}/devices"), &[("Cookie", &person)], b"");
    assert_eq!(error(&answer), 401);
}

#[test]
fn names_of_headers_begin_with_capitals() {
    let (running, _, _folder) = server(|options| options);
    let (_, id) = accepted(&running, "a");
    let head = get(&running, &format!("{INVENTORY}/devices")).head;
    for name in ["\r\nContent-Type: ", "\r\nContent-Length: ", "\r\nX-Total-Count: ", "\r\nLink: "] {
        assert!(head.contains(name), "{head}");
    }
    let body = json!({ "identity_data": { "mac": "b" }, "pubkey": Device::new("b").pem() });
    let made = manage(&running, "POST", &format!("{DEVAUTH}/devices"), body);
    assert!(made.head.contains("\r\nLocation: "), "{}", made.head);
    assert!(get(&running, &format!("{INVENTORY}/devices/{id}")).head.contains("\r\nEtag: "));
    let garbage = raw(&running, b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(!String::from_utf8_lossy(&garbage).contains("\r\ncontent-"));
}

#[test]
fn the_subject_of_a_login_is_a_uuid_and_the_same_each_time() {
    let (running, _, _folder) = server(|options| options.user("ada@example.com", "secret"));
    let login = || {
        let basic = format!("Basic {}", STANDARD.encode("ada@example.com:secret"));
        let path = "/api/management/v1/useradm/auth/login";
        let token = request(&running, "POST", path, &[("Authorization", &basic)], b"").text();
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        serde_json::from_slice::<Value>(&claims).unwrap()["sub"].as_str().unwrap().to_owned()
    };
    let subject = login();
    assert_eq!(subject.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{subject}");
    assert_eq!(login(), subject);
}

#[test]
fn a_device_without_an_artifact_says_what_it_is() {
    let (running, _, _folder, mut device, _, deployment) = deployed();
    device.device_type = "otherdev".to_owned();
    assert_eq!(device.next(&running).status, 204);
    let listed = get(&running, &format!("{DEPLOYMENTS}/{deployment}/devices")).json();
    assert_eq!((&listed[0]["status"], &listed[0]["device_type"]), (&json!("noartifact"), &json!("otherdev")));
}

#[test]
fn a_device_with_an_artifact_of_many_files_has_no_list_of_them() {
    let (running, management, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<Part> = (0..11).map(|number| Part(number.to_string())).collect();
    let sources: Vec<&dyn write::PayloadSource> =
        files.iter().map(|file| file as &dyn write::PayloadSource).collect();
    let spec = ArtifactSpec::module_image(
        "many".parse().unwrap(),
        vec!["testdev".parse().unwrap()],
        "thing".parse().unwrap(),
    );
    let mut file = std::fs::File::create(folder.path().join("many.mender")).unwrap();
    write::write(&spec, &sources, None, &mut tempfile::tempfile().unwrap(), &mut file).unwrap();
    let artifact = management.upload_artifact(&folder.path().join("many.mender")).unwrap();
    let deployment = management.deploy("n", "many", &[id]).unwrap();
    assert_eq!(device.next(&running).status, 200);
    let listed = get(&running, &format!("{DEPLOYMENTS}/{deployment}/devices")).json();
    assert_eq!(listed[0]["image"]["meta_artifact"]["updates"][0]["files"], Value::Null);
    let shown = get(&running, &format!("{ARTIFACTS}/{artifact}")).json();
    assert_eq!(shown["updates"][0]["files"].as_array().unwrap().len(), 11);
}

struct Part(String);

impl write::PayloadSource for Part {
    fn name(&self) -> &str {
        &self.0
    }

    fn size(&self) -> u64 {
        1
    }

    fn open(&self) -> std::io::Result<Box<dyn std::io::Read + '_>> {
        Ok(Box::new(&b"x"[..]))
    }
}

#[test]
fn a_message_in_a_log_is_one_line_without_escapes() {
    let (running, management, _folder, device, id, deployment) = deployed();
    device.next(&running);
    let messages = json!({ "messages": [
        { "timestamp": "2026-11-22T19:04:36Z", "level": "i\n", "message": "m\u{1b}[2J\n2026-11-22T19:04:37Z error: faked\n" },
        { "timestamp": "2026-11-22T19:04:38Z", "level": "info", "message": "\u{9b}2J\u{202e}für" },
    ] });
    let path = format!("{DEVICES}/{deployment}/log");
    assert_eq!(device.ask(&running, "PUT", &path, &messages.to_string()).status, 204);
    let log = management.log(&deployment, &id).unwrap();
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(!log.chars().any(|c| c.is_control() && c != '\n'), "{log:?}");
    assert!(log.ends_with("2026-11-22T19:04:38Z info: \\u{9b}2J\\u{202e}für\n"), "{log}");
}
