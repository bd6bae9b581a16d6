//! A fleet that is made up: devices that the load generator can speak for, and a store that is filled with them.
//!
//! Everything about a device follows from its number, so that neither side has to remember a million of them. The keys of
//! the devices are in no secret place: nothing of this is for a fleet that is real.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::domain::id;
use crate::domain::identity::Identity;
use crate::domain::token::Subject;
use crate::model::time::Timestamp;
use crate::model::{Attribute, AuthSet, AuthStatus, Device, Inventory};
use crate::store::{DumpRow, Secrets, StoreError, sqlite};
use crate::work::query::DeviceView;

/// What stands before an Ed25519 key in its `SubjectPublicKeyInfo`.
const INFO: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// Devices that are made before the store has to take them.
const AHEAD: usize = 1000;
/// The devices of the group [`TENTH`] are those whose number is a multiple of that.
pub const IN_TENTH: u32 = 10;
/// The group with every tenth device.
pub const TENTH: &str = "tenth";
/// The devices that are not in [`TENTH`] are in so many groups.
const GROUPS: u32 = 97;
/// The types of devices.
pub const DEVICE_TYPES: [&str; 4] = ["board-a", "board-b", "board-c", "gateway"];
/// What all of them have installed.
pub const ARTIFACT: &str = "release-1";
/// The checksum that they report.
pub const CHECKSUM: &str = "4d480539cdb23a4aee6330ff80673a5af92b7793eb1c57c4694532f96383b619";
/// How many values the attribute `os` has.
const SYSTEMS: u64 = 8;

/// Numbers that look like chance and are always the same.
fn mixed(number: u32, salt: u64) -> u64 {
    let mut x = u64::from(number).wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A UUID in any order, with the number at its end.
fn uuid(number: u32, salt: u64) -> String {
    let (first, second) = (mixed(number, salt), mixed(number, salt + 1));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:04x}{number:08x}",
        first >> 32,
        first & 0xffff,
        (first >> 16) & 0xfff,
        0x8000 | (second & 0x3fff),
        (second >> 16) & 0xffff,
    )
}

/// What the server calls the device.
pub fn device_id(number: u32) -> String {
    uuid(number, 10)
}

/// The number of the device with that id.
pub fn number_of(device_id: &str) -> Option<u32> {
    u32::from_str_radix(device_id.get(28..)?, 16).ok()
}

/// The name that it reports, and nobody else.
pub fn host_name(number: u32) -> String {
    format!("device-{number:07}")
}

/// The type that it is of.
pub fn device_type(number: u32) -> &'static str {
    let which = mixed(number, 2) as usize % DEVICE_TYPES.len();
    DEVICE_TYPES.get(which).copied().unwrap_or("gateway")
}

/// The value of the attribute `os`, one of eight.
pub fn system(number: u32) -> String {
    format!("linux-{}", mixed(number, 3) % SYSTEMS)
}

fn group(number: u32) -> String {
    if number % IN_TENTH == 0 { TENTH.to_owned() } else { format!("group-{:02}", number % GROUPS) }
}

/// The 25 attributes that the device reports. Three of them are others with each `turn`.
pub fn attributes(number: u32, turn: u32) -> [(&'static str, Value); 25] {
    let of = |salt: u64, count: u64| mixed(number, salt) % count;
    let bytes = mixed(number, 4).to_be_bytes();
    let [a, b, c, d, e, _, f, g] = bytes;
    let changing = number.wrapping_mul(31).wrapping_add(turn);
    let address = format!("10.{a}.{b}.{c}");
    [
        ("hostname", json!(host_name(number))),
        ("os", json!(system(number))),
        ("kernel", json!(format!("6.{}.{}", of(5, 12), of(6, 60)))),
        ("region", json!(format!("region-{:02}", of(7, 50)))),
        ("device_type", json!(device_type(number))),
        ("artifact_name", json!(ARTIFACT)),
        ("rootfs-image.version", json!(ARTIFACT)),
        ("rootfs-image.checksum", json!(CHECKSUM)),
        ("serial_number", json!(format!("SN{:010}", 4_000_000_000_u64 + mixed(number, 8) % 1_000_000_000))),
        ("mem_total_kB", json!(262_144_u64 << of(9, 5))),
        ("cpu_model", json!(format!("ARMv8 Processor rev {}", of(10, 6)))),
        ("cpu_cores", json!(1 << of(11, 4))),
        ("mac_eth0", json!(format!("02:{d:02x}:{e:02x}:{f:02x}:{g:02x}:{:02x}", number & 0xff))),
        ("ipv4_eth0", json!(format!("{address}/8"))),
        ("addresses", json!([address, format!("fe80::{f:x}:{g:x}")])),
        ("network_interfaces", json!(["lo", "eth0", "wlan0"])),
        ("update_modules", json!(["deb", "directory", "docker", "script", "single-file"])),
        ("client_version", json!(format!("1.{}.0", of(12, 4)))),
        ("bootloader_integration", json!(if of(13, 3) == 0 { "grub" } else { "uboot" })),
        ("site", json!(format!("site-{:04}", of(14, 1000)))),
        ("customer", json!(format!("customer-{:03}", of(15, 200)))),
        ("produced", json!(format!("20{:02}-{:02}-{:02}", 15 + of(16, 10), 1 + of(17, 12), 1 + of(18, 28)))),
        ("uptime_seconds", json!(u64::from(changing) % 8_640_000)),
        ("temperature", json!(f64::from(changing % 800) / 10.0)),
        ("free_kB", json!(u64::from(changing.wrapping_mul(4099)) % 4_000_000)),
    ]
}

/// Speaks for the devices of a fleet whose folder it has: it has the key that the server signs their tokens with, so that a
/// million devices need not authenticate before anything can be measured.
pub struct Simulated {
    secrets: Secrets,
}

impl Simulated {
    /// Reads the keys in a server's data folder.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn open(folder: &Path) -> Result<Simulated, StoreError> {
        Ok(Simulated { secrets: Secrets::open(folder)? })
    }

    /// A token that the server would have given to the device.
    pub fn token(&self, number: u32) -> String {
        const LIFETIME_SECONDS: u64 = 24 * 60 * 60;
        let (auth_set, device) = (uuid(number, 20), device_id(number));
        let subject = Subject::Device { auth_set: &auth_set, device: &device, serial: 0 };
        self.secrets.tokens.issue(subject, Timestamp::now(), LIFETIME_SECONDS)
    }

    /// What opens the management API.
    pub fn management_token(&self) -> &str {
        &self.secrets.management_token
    }
}

/// A device of the store, accepted, as it is after it has reported.
fn row(number: u32, now: Timestamp) -> Result<DumpRow, StoreError> {
    let damaged =
        |what: &str| StoreError::Damaged { what: format!("the {what} of a device that is made up") };
    let digest = id::sha256(format!("simulated device {number}").as_bytes());
    let key = Ed25519KeyPair::from_seed_unchecked(&digest).map_err(|_| damaged("key"))?;
    let info = STANDARD.encode([INFO, key.public_key().as_ref()].concat());
    let reported = attributes(number, 0);
    let mac = reported.iter().find(|(name, _)| *name == "mac_eth0").map(|(_, value)| value.clone());
    let attributes = BTreeMap::from([
        ("mac".to_owned(), mac.unwrap_or_default()),
        ("sn".to_owned(), json!(format!("{number:08}"))),
    ]);
    let identity = Identity::new(attributes).map_err(|_| damaged("identity"))?;
    // Over the last hundred days.
    let created = Timestamp(now.0.saturating_sub(mixed(number, 30) % 8_640_000_000));
    let device = Device {
        id: device_id(number),
        identity: identity.attributes,
        identity_sha256: identity.sha256,
        created,
        updated: created,
        auth_sets: vec![AuthSet {
            id: uuid(number, 20),
            pubkey: format!("-----BEGIN PUBLIC KEY-----\n{info}\n-----END PUBLIC KEY-----\n"),
            status: AuthStatus::Accepted,
            ts: created,
            serial: 0,
        }],
        group: Some(group(number)),
        number: number + 1,
        active: None,
        last_finished: 0,
        tags: BTreeMap::new(),
        monitor: BTreeMap::new(),
    };
    let attribute = |(name, value): (&'static str, Value)| {
        let one = Attribute { name: name.to_owned(), value, description: None, timestamp: created };
        (name.to_owned(), one)
    };
    let inventory =
        Inventory { attributes: reported.into_iter().map(attribute).collect(), updated: Some(now) };
    Ok(DumpRow::Device(Box::new(DeviceView { device, inventory, check_in: Some(now) })))
}

/// Fills an empty data folder with `devices` devices, numbered from 0.
///
/// # Errors
/// There is something in it, or it could not be written.
pub fn seed(folder: &Path, devices: u32) -> Result<(), StoreError> {
    let io = |doing| move |source| StoreError::Io { doing, path: folder.to_owned(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(io("starting threads for"))?;
    let store = sqlite::open(folder)?;
    Secrets::open(folder)?;
    let now = Timestamp::now();
    let (made, rows) = std::sync::mpsc::sync_channel(AHEAD);
    std::thread::scope(|scope| {
        // To make the keys takes about as long as to store what there is.
        scope.spawn(move || {
            // The store has given up when nobody takes them.
            (0..devices).map(|number| row(number, now)).try_for_each(|row| made.send(row))
        });
        let mut rows = rows.into_iter();
        let filled = runtime.block_on(store.fill(&mut rows));
        drop(rows);
        filled
    })?;
    runtime.block_on(store.stop());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_device_is_in_its_id() {
        for number in [0, 1, 77, 999_999, u32::MAX] {
            let id = device_id(number);
            assert!(id::is_uuid(&id), "{id}");
            assert_eq!(number_of(&id), Some(number));
            assert_ne!(id, uuid(number, 20), "a set has another id than its device");
        }
        assert_eq!(number_of("nonsense"), None);
    }

    #[test]
    fn three_of_25_attributes_change_with_the_turn() {
        let (first, second) = (attributes(12, 0), attributes(12, 1));
        let changed: Vec<_> =
            first.iter().zip(&second).filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0).collect();
        assert_eq!(changed, ["uptime_seconds", "temperature", "free_kB"]);
        let names: std::collections::BTreeSet<_> = first.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), 25);
    }

    #[test]
    fn every_tenth_device_is_in_the_group_of_those() {
        let tenth = (0..1000).filter(|number| group(*number) == TENTH).count();
        assert_eq!(tenth, 100);
    }
}
