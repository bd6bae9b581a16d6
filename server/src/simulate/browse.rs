//! A person who looks at lists with 50 devices a page, while devices ask.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server_core::simulated;

use super::connection::Connection;
use crate::histogram::Histogram;

/// Devices on a page.
const PER_PAGE: u64 = 50;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// One list that is looked at.
struct Look {
    name: &'static str,
    method: &'static str,
    path: String,
    body: String,
    /// How many there have to be on all pages, where that is known.
    total: Option<u64>,
    /// A fleet may have none of it.
    may_be_empty: bool,
}

/// What was looked at: by name, times and how many answers were wrong.
pub(super) type Looks = BTreeMap<&'static str, (Histogram, u64)>;

fn looks(devices: u32) -> Vec<Look> {
    let all = u64::from(devices);
    let last = all.div_ceil(PER_PAGE).max(1);
    let system = simulated::system(0);
    let of_system = (0..devices).filter(|number| simulated::system(*number) == system).count() as u64;
    let middle_of_system = (of_system / PER_PAGE / 2).max(1);
    // As the person types it: the numbers that end with 771 or 773.
    let matching = (0..devices).filter(|number| matches!(number % 1000, 771 | 773)).count() as u64;
    let list = |name, page| Look {
        name,
        method: "GET",
        path: format!("/api/management/v1/inventory/devices?page={page}&per_page={PER_PAGE}"),
        body: String::new(),
        total: Some(all),
        may_be_empty: false,
    };
    let search = |name, page: u64, filters: Value, sort: Value, total| Look {
        name,
        method: "POST",
        path: "/api/management/v2/inventory/filters/search".to_owned(),
        body: json!({ "page": page, "per_page": PER_PAGE, "filters": filters, "sort": sort }).to_string(),
        total,
        may_be_empty: false,
    };
    let is_system = json!([{ "scope": "inventory", "attribute": "os", "type": "$eq", "value": system }]);
    let by = |attribute: &str, order: &str| json!([{ "scope": "inventory", "attribute": attribute, "order": order }]);
    let pattern =
        json!([{ "scope": "inventory", "attribute": "hostname", "type": "$regex", "value": ".*77[13]$" }]);
    let middle = simulated::device_id(devices / 2);
    let page = |name, path: &str| Look {
        name,
        method: "GET",
        path: format!("/api/management/{path}"),
        body: String::new(),
        total: None,
        may_be_empty: true,
    };
    let is = |scope: &str, attribute: &str, value: &str| json!([{ "scope": scope, "attribute": attribute, "type": "$eq", "value": value }]);
    let is_tenth = is("system", "group", simulated::TENTH);
    let has_version = is("inventory", "artifact_name", simulated::ARTIFACT);
    vec![
        list("first page", 1),
        list("middle page", last.div_ceil(2)),
        list("last page", last),
        Look {
            name: "last page of the accepted",
            method: "GET",
            path: format!(
                "/api/management/v2/devauth/devices?status=accepted&page={last}&per_page={PER_PAGE}"
            ),
            body: String::new(),
            total: None,
            may_be_empty: false,
        },
        search("all, sorted by serial number", 1, json!([]), by("serial_number", "desc"), Some(all)),
        search(
            "one system, sorted by serial number",
            1,
            is_system.clone(),
            by("serial_number", "asc"),
            Some(of_system),
        ),
        search(
            "the same, middle page",
            middle_of_system,
            is_system,
            by("serial_number", "asc"),
            Some(of_system),
        ),
        search("pattern over host names", 1, pattern, json!([]), Some(matching)),
        // What the page asks besides.
        page("page: statistics", "v2/inventory/statistics"),
        page("page: devices by status", "v2/devauth/devices/count"),
        page("page: groups", "v1/inventory/groups"),
        page("page: attributes to filter by", "v2/inventory/filters/attributes"),
        page(
            "page: roll-outs that run",
            "v2/deployments/deployments?status=inprogress&per_page=10&sort=desc",
        ),
        page("page: releases", "v2/deployments/deployments/releases?sort=modified:desc&per_page=20"),
        page("page: one device", &format!("v1/inventory/devices/{middle}")),
        page("page: its updates", &format!("v1/deployments/deployments/devices/{middle}")),
        page("page: its alerts", &format!("v1/devicemonitor/devices/{middle}/alerts/latest")),
        page("page: audit log", "v1/auditlogs/logs?per_page=20"),
        search("page: devices of one group", 1, is_tenth, json!([]), None),
        search("page: how many have one version", 1, has_version, json!([]), None),
    ]
}

/// Looks at one list after the other until `stop`, and at each once in any case.
pub(super) fn browse(
    connection: &mut Connection<'_>,
    host: &str,
    token: &str,
    devices: u32,
    stop: &AtomicBool,
) -> Looks {
    let looks = looks(devices);
    let mut seen = Looks::new();
    loop {
        for look in &looks {
            let request = format!(
                "{} {} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{}",
                look.method,
                look.path,
                look.body.len(),
                look.body
            );
            let began = Instant::now();
            let is_right = match connection.ask(request.as_bytes()) {
                Ok(answer) => {
                    let is_total = look.total.is_none_or(|total| answer.head.total == Some(total));
                    if answer.head.status != 200 || !is_total {
                        log::debug!("{}: {:?} in place of {:?}", look.name, answer.head, look.total);
                    }
                    answer.head.status == 200
                        && is_total
                        && (answer.body.len() > 2 || look.may_be_empty || look.total == Some(0))
                }
                Err(_) => false,
            };
            let (times, wrong) = seen.entry(look.name).or_default();
            times.add(began.elapsed());
            *wrong += u64::from(!is_right);
            std::thread::sleep(PAUSE);
        }
        if stop.load(Ordering::Relaxed) {
            return seen;
        }
    }
}
