//! Which keys may speak for which devices.

use std::collections::HashMap;

use super::{Changed, DeviceEntry, Fleet};
use crate::domain::id::{self, NoRandomness};
use crate::domain::identity::Identity;
use crate::domain::limits;
use crate::domain::model::{AuthSet, AuthStatus, Change, Device, Status};
use crate::domain::time::Timestamp;
use crate::domain::token::Claims;

/// What the server does about devices without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Accept devices that nobody has decided about.
    pub(crate) auto_accept: bool,
    /// Most accepted devices; 0 is no limit.
    pub(crate) max_devices: usize,
}

/// The answer to a device that asks for a token. Its signature was checked before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuthDecision {
    /// It gets one.
    Accepted {
        /// The device.
        device: String,
        /// Its set.
        auth_set: String,
        /// The serial number of the set.
        serial: u64,
    },
    /// Not now.
    Unauthorized,
}

/// What a person wants done with a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Let it speak for the device.
    Accept,
    /// Do not.
    Reject,
    /// As if nobody had decided.
    Reset,
}

/// Why an operation on devices was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum AdmissionError {
    /// There is no such device or set.
    NotFound,
    /// The same identity and key are known already.
    Exists,
    /// The set's status cannot become that one.
    BadTransition,
    /// No more devices can be accepted.
    DeviceLimit,
    /// There were no random numbers for a new id.
    NoRandomness,
}

impl Fleet {
    /// Decides about a device that asks for a token, and remembers it when it is new.
    ///
    /// # Errors
    /// There were no random numbers for a new id.
    pub(crate) fn authenticate(
        &mut self,
        identity: &Identity,
        pubkey: &str,
        policy: Policy,
        now: Timestamp,
    ) -> Changed<AuthDecision, NoRandomness> {
        let room = self.room(policy);
        let mut changes = Vec::new();
        let device_id = match self.by_identity.get(&identity.sha256) {
            Some(id) => id.clone(),
            None if !self.undecided.has_room_for(identity.bytes + pubkey.len()) => {
                return Ok((AuthDecision::Unauthorized, changes));
            }
            None => self.new_device(identity, now)?,
        };
        let Some((device, entry)) = self.devices.get_mut(&device_id) else {
            return Ok((AuthDecision::Unauthorized, changes));
        };
        let known = device.auth_sets.iter().position(|set| set.pubkey == pubkey);
        let at = match known {
            Some(at) => at,
            None => {
                make_room(&mut device.auth_sets);
                device.auth_sets.push(new_set(pubkey, AuthStatus::Pending, now)?);
                device.auth_sets.len() - 1
            }
        };
        let status = device.auth_sets[at].status;
        let was_accepted = device.status() == AuthStatus::Accepted;
        // A key that is new on a device with an accepted one is for a person to judge, whatever the policy says.
        let promoted = match status {
            AuthStatus::Preauthorized => was_accepted || room,
            AuthStatus::Pending => policy.auto_accept && room && !was_accepted,
            AuthStatus::Accepted | AuthStatus::Rejected | AuthStatus::Noauth => false,
        };
        if promoted {
            accept(device, at, now);
        }
        if promoted || known.is_none() {
            changes.push(Change::Device(device.clone()));
        }
        let set = &device.auth_sets[at];
        let decision = if set.status == AuthStatus::Accepted {
            entry.check_in.store(now.0, std::sync::atomic::Ordering::Relaxed);
            AuthDecision::Accepted { device: device_id.clone(), auth_set: set.id.clone(), serial: set.serial }
        } else {
            AuthDecision::Unauthorized
        };
        self.note(&device_id);
        Ok((decision, changes))
    }

    /// Whether the token is one of an accepted set.
    pub(crate) fn is_valid(&self, claims: &Claims) -> bool {
        claims.device && self.may_speak(&claims.sub, &claims.jti, claims.serial)
    }

    /// Whether a set speaks for a device, and its tokens were not revoked since it had the serial number.
    pub(crate) fn may_speak(&self, device: &str, set: &str, serial: u64) -> bool {
        let device = self.devices.get(device);
        let set = device.and_then(|(device, _)| device.auth_sets.iter().find(|known| known.id == set));
        set.is_some_and(|set| set.status == AuthStatus::Accepted && set.serial == serial)
    }

    /// Accepts a device before it is heard of. With `force`, a set that is there already is made anew.
    ///
    /// # Errors
    /// Why it was not done.
    pub(crate) fn preauthorize(
        &mut self,
        identity: &Identity,
        pubkey: &str,
        force: bool,
        now: Timestamp,
    ) -> Changed<String, AdmissionError> {
        let known = self.by_identity.get(&identity.sha256).cloned();
        if known.is_some() && !force {
            return Err(AdmissionError::Exists);
        }
        let id = match known {
            Some(id) => id,
            None => self.new_device(identity, now)?,
        };
        let (device, _) = self.devices.get_mut(&id).ok_or(AdmissionError::NotFound)?;
        device.auth_sets.retain(|set| set.pubkey != pubkey);
        device.auth_sets.push(new_set(pubkey, AuthStatus::Preauthorized, now)?);
        device.updated = now;
        let changes = vec![Change::Device(device.clone())];
        self.note(&id);
        Ok((id, changes))
    }

    /// Decides about one set.
    ///
    /// # Errors
    /// Why it was not done.
    pub(crate) fn admit(
        &mut self,
        device_id: &str,
        set_id: &str,
        admission: Admission,
        policy: Policy,
        now: Timestamp,
    ) -> Changed<(), AdmissionError> {
        let room = self.room(policy);
        let (device, _) = self.devices.get_mut(device_id).ok_or(AdmissionError::NotFound)?;
        let found = device.auth_sets.iter().position(|set| set.id == set_id);
        let at = found.ok_or(AdmissionError::NotFound)?;
        match (device.auth_sets[at].status, admission) {
            (AuthStatus::Accepted, Admission::Accept) | (AuthStatus::Rejected, Admission::Reject) => {
                return Ok(((), Vec::new()));
            }
            (AuthStatus::Pending, Admission::Reset) => return Ok(((), Vec::new())),
            (AuthStatus::Pending | AuthStatus::Rejected, Admission::Accept) => {
                if device.status() != AuthStatus::Accepted && !room {
                    return Err(AdmissionError::DeviceLimit);
                }
                accept(device, at, now);
            }
            (AuthStatus::Pending | AuthStatus::Accepted, Admission::Reject) => {
                device.auth_sets[at].status = AuthStatus::Rejected;
                device.auth_sets[at].serial += 1;
            }
            (AuthStatus::Rejected, Admission::Reset) => device.auth_sets[at].status = AuthStatus::Pending,
            (AuthStatus::Preauthorized | AuthStatus::Noauth, _)
            | (AuthStatus::Accepted, Admission::Reset) => {
                return Err(AdmissionError::BadTransition);
            }
        }
        device.updated = now;
        let changes = vec![Change::Device(device.clone())];
        self.note(device_id);
        Ok(((), changes))
    }

    /// Forgets one set. A device without any stays, with its history; only one that was expected and never came goes.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn dismiss(
        &mut self,
        device_id: &str,
        set_id: &str,
        now: Timestamp,
    ) -> Changed<(), AdmissionError> {
        let (device, _) = self.devices.get_mut(device_id).ok_or(AdmissionError::NotFound)?;
        if device.auth_sets.iter().all(|set| set.id != set_id) {
            return Err(AdmissionError::NotFound);
        }
        if let [AuthSet { status: AuthStatus::Preauthorized, .. }] = device.auth_sets.as_slice() {
            return self.decommission(device_id, now);
        }
        device.auth_sets.retain(|set| set.id != set_id);
        device.updated = now;
        let changes = vec![Change::Device(device.clone())];
        self.note(device_id);
        Ok(((), changes))
    }

    /// Forgets a device, and ends what it was at work on.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn decommission(&mut self, device_id: &str, now: Timestamp) -> Changed<(), AdmissionError> {
        let (device, _) = self.devices.remove(device_id).ok_or(AdmissionError::NotFound)?;
        self.by_identity.remove(&device.identity_sha256);
        self.configurations.remove(&device.id);
        let mut changes = vec![Change::DeviceGone(device.id)];
        self.note(device_id);
        changes.extend(self.forget_logs(device_id));
        changes.extend(self.end_for(device_id, Status::Decommissioned, now)?);
        Ok(((), changes))
    }

    /// Makes every token of a set invalid.
    ///
    /// # Errors
    /// There is no such set.
    pub(crate) fn revoke(&mut self, set_id: &str) -> Changed<(), AdmissionError> {
        for (device, _) in self.devices.values_mut() {
            if let Some(set) = device.auth_sets.iter_mut().find(|set| set.id == set_id) {
                set.serial += 1;
                return Ok(((), vec![Change::Device(device.clone())]));
            }
        }
        Err(AdmissionError::NotFound)
    }

    /// Devices in the order of their ids.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().map(|(device, _)| device)
    }

    /// One device.
    pub(crate) fn device(&self, id: &str) -> Option<&Device> {
        self.devices.get(id).map(|(device, _)| device)
    }

    fn room(&self, policy: Policy) -> bool {
        policy.max_devices == 0 || self.accepted.len() < policy.max_devices
    }

    fn new_device(&mut self, identity: &Identity, now: Timestamp) -> Result<String, NoRandomness> {
        let device = Device {
            id: id::uuid()?,
            identity: identity.attributes.clone(),
            identity_sha256: identity.sha256.clone(),
            created: now,
            updated: now,
            auth_sets: Vec::new(),
            group: None,
        };
        let id = device.id.clone();
        self.by_identity.insert(identity.sha256.clone(), id.clone());
        self.devices.insert(id.clone(), (device, DeviceEntry::default()));
        Ok(id)
    }

    /// Keeps the indices right after a device has changed.
    pub(super) fn note(&mut self, id: &str) {
        let device = self.devices.get(id).map(|(device, _)| device);
        let status = device.map(Device::status);
        if status == Some(AuthStatus::Accepted) {
            self.accepted.insert(id.to_owned());
        } else {
            self.accepted.remove(id);
        }
        let undecided = device.filter(|device| device.status() <= AuthStatus::Pending);
        self.undecided.note(id, undecided.map(weight));
    }
}

/// Devices that nobody has accepted, and how much they weigh: anybody can make those.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    weights: HashMap<String, usize>,
    bytes: usize,
}

impl Undecided {
    fn has_room_for(&self, bytes: usize) -> bool {
        self.weights.len() < limits::UNDECIDED_DEVICES && self.bytes + bytes <= limits::UNDECIDED_BYTES
    }

    fn note(&mut self, id: &str, weight: Option<usize>) {
        let before = match weight {
            Some(weight) => self.weights.insert(id.to_owned(), weight),
            None => self.weights.remove(id),
        };
        self.bytes = self.bytes + weight.unwrap_or(0) - before.unwrap_or(0);
    }
}

/// About as many bytes as a device has in its records.
fn weight(device: &Device) -> usize {
    let identity = device.identity.iter().map(|(name, value)| name.len() + value.to_string().len());
    identity.sum::<usize>() + device.auth_sets.iter().map(|set| set.pubkey.len()).sum::<usize>()
}

/// A device that may have no more keys loses the oldest one that nobody has decided about, or else the oldest that was
/// rejected. Anybody who knows its identity can send keys, and must not keep the device's own new key out with them.
fn make_room(sets: &mut Vec<AuthSet>) {
    if sets.len() < limits::AUTH_SETS {
        return;
    }
    let oldest = |status: AuthStatus| {
        let candidates = sets.iter().enumerate().filter(|(_, set)| set.status == status);
        candidates.min_by_key(|(_, set)| set.ts).map(|(at, _)| at)
    };
    if let Some(at) = oldest(AuthStatus::Pending).or_else(|| oldest(AuthStatus::Rejected)) {
        sets.remove(at);
    }
}

fn new_set(pubkey: &str, status: AuthStatus, now: Timestamp) -> Result<AuthSet, NoRandomness> {
    Ok(AuthSet { id: id::uuid()?, pubkey: pubkey.to_owned(), status, ts: now, serial: 0 })
}

/// Accepting one set rejects the one that was accepted before.
fn accept(device: &mut Device, at: usize, now: Timestamp) {
    for (other, set) in device.auth_sets.iter_mut().enumerate() {
        if other == at {
            set.status = AuthStatus::Accepted;
        } else if set.status == AuthStatus::Accepted {
            set.status = AuthStatus::Rejected;
            set.serial += 1;
        }
    }
    device.updated = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(id: usize, status: AuthStatus) -> AuthSet {
        AuthSet { id: id.to_string(), pubkey: "key".to_owned(), status, ts: Timestamp(id as u64), serial: 0 }
    }

    /// A device that may have no more keys: `left_out` is the one that goes.
    fn check(statuses: impl Fn(usize) -> AuthStatus, left_out: Option<usize>) {
        let mut sets: Vec<AuthSet> = (0..limits::AUTH_SETS).map(|id| set(id, statuses(id))).collect();
        let before = sets.clone();
        make_room(&mut sets);
        let gone: Vec<_> =
            before.iter().filter(|set| !sets.contains(set)).map(|set| set.ts.0 as usize).collect();
        assert_eq!(gone, left_out.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn an_accepted_or_preauthorized_key_never_makes_room() {
        use AuthStatus::{Accepted, Pending, Preauthorized, Rejected};
        check(|id| if id == 0 { Accepted } else { Pending }, Some(1));
        check(|id| if id < 2 { Preauthorized } else { Rejected }, Some(2));
        check(|id| if id < 50 { Rejected } else { Pending }, Some(50));
        check(|_| Preauthorized, None);
    }

    #[test]
    fn undecided_devices_weigh_something_until_they_are_decided_about_or_gone() {
        let mut undecided = Undecided::default();
        let half = limits::UNDECIDED_BYTES / 2;
        undecided.note("a", Some(half));
        assert!(undecided.has_room_for(half) && !undecided.has_room_for(half + 1));
        undecided.note("a", Some(half + 10));
        assert!(!undecided.has_room_for(half));
        undecided.note("b", None);
        undecided.note("a", None);
        assert_eq!((undecided.bytes, undecided.weights.len()), (0, 0));
    }

    #[test]
    fn a_device_that_is_accepted_weighs_nothing_any_more() {
        let mut fleet = Fleet::default();
        let policy = Policy { auto_accept: false, max_devices: 0 };
        let identity = Identity::parse("{\"mac\":\"a\"}").unwrap();
        fleet.authenticate(&identity, "key", policy, Timestamp(1)).unwrap();
        assert_eq!(fleet.undecided.bytes, "mac\"a\"key".len());
        let device = fleet.devices().next().unwrap().clone();
        fleet.admit(&device.id, &device.auth_sets[0].id, Admission::Accept, policy, Timestamp(2)).unwrap();
        assert_eq!(fleet.undecided.bytes, 0);
    }
}
