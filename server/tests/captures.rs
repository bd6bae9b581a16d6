//! Requests as Debian's mender 3.4.0 sends them: chunked, with a newline at the end, over one connection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::{Answer, accepted, artifact, parse, server};
use server_core::Running;

/// One connection that is used for everything.
struct OneConnection {
    stream: TcpStream,
    host: String,
    token: String,
}

impl OneConnection {
    fn new(running: &Running, token: &str) -> OneConnection {
        let host = format!("127.0.0.1:{}", running.port());
        OneConnection { stream: TcpStream::connect(&host).unwrap(), host, token: token.to_owned() }
    }

    /// A request with the headers of the recording.
    fn ask(&mut self, method: &str, path: &str, body: Option<&str>) -> Answer {
        let mut text =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: Go-http-client/1.1\r\n", self.host);
        if body.is_some() {
            text += "Transfer-Encoding: chunked\r\n";
        }
        text += &format!("Accept-Encoding: gzip\r\nAuthorization: Bearer {}\r\n", self.token);
        if let Some(body) = body {
            text += &format!("Content-Type: application/json\r\n\r\n{:x}\r\n{body}\r\n0\r\n", body.len());
        }
        self.stream.write_all((text + "\r\n").as_bytes()).unwrap();
        let mut bytes = Vec::new();
        loop {
            let mut piece = [0; 4096];
            let count = self.stream.read(&mut piece).unwrap();
            assert_ne!(count, 0, "the connection stays open");
            bytes.extend(&piece[..count]);
            let Some(answer) = parse(&bytes) else { continue };
            let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            if answer.body.len() == length {
                return answer;
            }
        }
    }
}

#[test]
fn the_recorded_course_of_an_update_is_served() {
    let (running, management, _folder) = server(|options| options.v2(false));
    let (device, id) = accepted(&running, "a");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let deployment = management.deploy("first", "release-2", std::slice::from_ref(&id)).unwrap();
    let mut client = OneConnection::new(&running, &device.token);

    let inventory = "[{\"name\":\"device_type\",\"value\":\"testdev\"},{\"name\":\"hostname\",\"value\":\"box1\"},\
        {\"name\":\"artifact_name\",\"value\":\"release-1\"},\
        {\"name\":\"mender_client_version\",\"value\":\"3.4.0+ds1-5+b1\"},\
        {\"name\":\"ip\",\"value\":[\"10.0.0.1\",\"10.0.0.2\"]}]\n";
    assert_eq!(client.ask("PUT", "/api/devices/v1/inventory/device/attributes", Some(inventory)).status, 200);

    let v2 = "{\"device_provides\":{\"artifact_name\":\"release-1\",\"device_type\":\"testdev\"},\"update_control_map\":true}";
    assert_eq!(
        client.ask("POST", "/api/devices/v2/deployments/device/deployments/next", Some(v2)).status,
        404
    );
    let v1 = "{\"artifact_name\":\"release-1\",\"device_type\":\"testdev\"}";
    let next = "/api/devices/v1/deployments/device/deployments/next";
    assert_eq!(client.ask("POST", next, Some(v1)).status, 200);
    let query = format!("{next}?artifact_name=release-1&device_type=testdev");
    assert_eq!(client.ask("GET", &query, None).json()["id"], *deployment);

    let status = format!("/api/devices/v1/deployments/device/deployments/{deployment}/status");
    for body in [
        "{\"status\":\"downloading\",\"substate\":\"Executing script: Sync_Leave_00\"}\n",
        "{\"status\":\"downloading\",\"substate\":\"finished executing script: Sync_Leave_00\"}\n",
        "{\"status\":\"downloading\"}\n",
        "{\"status\":\"downloading\"}\n",
        "{\"status\":\"installing\"}\n",
        "{\"status\":\"failure\",\"substate\":\"Executing script: ArtifactFailure_Enter_00\"}\n",
        "{\"status\":\"failure\"}\n",
    ] {
        assert_eq!(client.ask("PUT", &status, Some(body)).status, 204, "{body}");
    }
    let log = "{\"messages\":[{\"timestamp\":\"2026-11-22T19:04:36Z\",\"level\":\"info\",\"message\":\"Running Mender client version: 3.4.0\"}]}\n";
    let path = format!("/api/devices/v1/deployments/device/deployments/{deployment}/log");
    assert_eq!(client.ask("PUT", &path, Some(log)).status, 204);
    assert_eq!(management.statistics(&deployment).unwrap()["failure"], 1);
    assert!(management.log(&deployment, &id).unwrap().contains("3.4.0"));
}
