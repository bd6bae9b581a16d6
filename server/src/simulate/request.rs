//! The bytes of what devices ask, written anew each time: to keep those of a million devices would need gigabytes.

use std::io::Write;

use server_core::simulated::{self, Simulated};

/// What a device asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Whether there is an update; mostly there is none.
    Poll,
    /// It reports its attributes.
    Inventory,
    /// It asks for an update that is there.
    Next,
    /// It reports how far it is.
    Report(&'static str),
}

/// A device with a deployment.
pub(super) const ROLL_OUT: &[Step] = &[
    Step::Next,
    Step::Report("downloading"),
    Step::Report("installing"),
    Step::Report("rebooting"),
    Step::Report("success"),
];

impl Step {
    /// Whether that answer is the one that the device expects.
    pub(super) fn is_expected(self, status: u16) -> bool {
        match self {
            Step::Poll => status == 204 || status == 200,
            Step::Inventory | Step::Next => status == 200,
            Step::Report(_) => status == 204,
        }
    }
}

/// What requests have in common.
pub(super) struct Requests {
    pub(super) fleet: Simulated,
    pub(super) host: String,
    /// The deployment that is rolled out.
    pub(super) deployment: String,
    /// Makes the inventories of this run others than those of the run before.
    pub(super) salt: u32,
}

impl Requests {
    /// Writes the request of a device into `bytes`; `body` is for what comes behind its head.
    pub(super) fn write(&self, step: Step, device: u32, bytes: &mut Vec<u8>, body: &mut Vec<u8>) {
        bytes.clear();
        body.clear();
        let (method, path) = match step {
            Step::Poll | Step::Next => {
                let kind = simulated::device_type(device);
                let (name, checksum) = (simulated::ARTIFACT, simulated::CHECKSUM);
                // To write into memory does not fail.
                let _ = write!(
                    body,
                    "{{\"device_provides\":{{\"artifact_name\":\"{name}\",\"device_type\":\"{kind}\",\
                     \"rootfs-image.version\":\"{name}\",\"rootfs-image.checksum\":\"{checksum}\"}}}}"
                );
                ("POST", "/api/devices/v2/deployments/device/deployments/next")
            }
            Step::Inventory => {
                attributes(device, self.salt, body);
                ("PUT", "/api/devices/v1/inventory/device/attributes")
            }
            Step::Report(status) => {
                let _ = write!(body, "{{\"status\":\"{status}\"}}");
                ("PUT", "/api/devices/v1/deployments/device/deployments/")
            }
        };
        let _ = write!(bytes, "{method} {path}");
        if let Step::Report(_) = step {
            let _ = write!(bytes, "{}/status", self.deployment);
        }
        let (host, token, length) = (&self.host, self.fleet.token(device), body.len());
        let _ = write!(
            bytes,
            " HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        bytes.extend_from_slice(body);
    }
}

fn attributes(device: u32, salt: u32, body: &mut Vec<u8>) {
    for (at, (name, value)) in simulated::attributes(device, salt).iter().enumerate() {
        let before = if at == 0 { '[' } else { ',' };
        let _ = write!(body, "{before}{{\"name\":\"{name}\",\"value\":{value}}}");
    }
    body.push(b']');
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_inventory_is_json() {
        let mut body = Vec::new();
        super::attributes(7, 1, &mut body);
        let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(read.as_array().map(Vec::len), Some(25));
        assert_eq!(read[0], serde_json::json!({ "name": "hostname", "value": "device-0000007" }));
    }
}
