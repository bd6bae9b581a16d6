//! One device from its first request to a successful deployment.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common;

use crate::common::{Device, artifact, server};

#[test]
fn a_device_is_accepted_updated_and_reports() {
    let (running, management, _folder) = server(|options| options);
    let mut device = Device::new("a");
    assert_eq!(device.authenticate(&running).status, 401);
    let id = management.devices().unwrap()[0].id.clone();
    management.accept(&id).unwrap();
    assert_eq!(device.authenticate(&running).status, 200);
    assert_eq!(device.next(&running).status, 204);

    let file = artifact("release-2", "testdev");
    let artifact_id = management.upload_artifact(file.path()).unwrap();
    let deployment = management.deploy("first", "release-2", std::slice::from_ref(&id)).unwrap();
    let offer = device.next(&running);
    assert_eq!(offer.status, 200);
    let offer = offer.json();
    assert_eq!(offer["id"], *deployment);
    assert_eq!(offer["artifact"]["id"], *artifact_id);
    let link = offer["artifact"]["source"]["uri"].as_str().unwrap();
    let path = link.strip_prefix(running.url()).unwrap();
    let loaded = common::request(&running, "GET", path, &[], b"");
    assert_eq!(loaded.body, std::fs::read(file.path()).unwrap());
    for status in ["downloading", "installing", "success"] {
        assert_eq!(device.report(&running, &deployment, status).status, 204);
    }
    assert_eq!(management.statistics(&deployment).unwrap()["success"], 1);
    assert_eq!(management.deployment(&deployment).unwrap()["status"], "finished");
    assert_eq!(device.next(&running).status, 204);
    running.stop();
}
