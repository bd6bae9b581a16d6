//! The device API against the server model and against scripted answers.

use std::collections::BTreeMap;
use std::time::Duration;

use client_core::server::{
    Api, Attribute, AttributeValue, DeploymentStatus, Reached, ReportAnswer, ServerError, Settings,
};
use testkit::clock::VirtualClock;
use testkit::server::{Endpoint, Failure, Matcher, SERVER, ServerModel, TestCredentials};
use testkit::transport::{Reply, ScriptedTransport, Sent};

const TOKEN: &str = "dG9r.c2VjcmV0.c2ln";
const AUTH: &str = "/api/devices/v1/authentication/auth_requests";

fn provides() -> BTreeMap<String, String> {
    let pairs = [("device_type", "testbox"), ("artifact_name", "release-1"), ("rootfs-image.version", "1")];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn one(name: &str, value: &str) -> Attribute {
    Attribute { name: name.into(), value: AttributeValue::One(value.into()) }
}

fn settings(servers: &[&str]) -> Settings {
    let mut settings = Settings::default();
    settings.servers = servers.iter().map(|server| (*server).to_owned()).collect();
    settings
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
        assert_eq!(api.report("d1", status).unwrap(), ReportAnswer::Accepted);
    }
    let log = br#"{"timestamp":"2026-11-22T19:04:36Z","level":"info","message":"m"}"#;
    assert_eq!(api.upload_log("d1", log).unwrap(), ReportAnswer::Accepted);
    assert_eq!(model.statuses("d1"), ["downloading", "installing", "failure"]);
    assert_eq!(model.logs("d1").len(), 1);
    assert_eq!(api.next_deployment(&provides()).unwrap(), None);
    assert_eq!(model.tokens_given(), 1);
}
