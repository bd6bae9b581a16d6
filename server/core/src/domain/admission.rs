//! Which keys may speak for which devices.

use super::id::{self, NoRandomness};
use super::identity::Identity;
use super::limits;
use super::rollout::{self, EndError, end_for};
use super::token::Claims;
use crate::model::time::Timestamp;
use crate::model::{AuthSet, AuthStatus, Configuration, Device, Status};
use crate::work::{Key, Kind, NotLoaded, Work};

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
        /// Its number; 0 when it is new.
        number: u32,
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum AdmissionError {
    /// Something has to be loaded first.
    NotLoaded,
    /// There is no such device or set.
    NotFound,
    /// The device with this id has the same identity.
    Exists(String),
    /// The set's status cannot become that one.
    BadTransition,
    /// No more devices can be accepted.
    DeviceLimit,
    /// There were no random numbers for a new id.
    NoRandomness,
}

impl From<NotLoaded> for AdmissionError {
    fn from(_: NotLoaded) -> AdmissionError {
        AdmissionError::NotLoaded
    }
}

impl From<EndError> for AdmissionError {
    fn from(error: EndError) -> AdmissionError {
        match error {
            EndError::NotLoaded => AdmissionError::NotLoaded,
            EndError::NoRandomness => AdmissionError::NoRandomness,
        }
    }
}

impl From<NoRandomness> for AdmissionError {
    fn from(_: NoRandomness) -> AdmissionError {
        AdmissionError::NoRandomness
    }
}

/// Why a token does not speak for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpeakError {
    /// Something has to be loaded first.
    NotLoaded,
    /// Its set is not accepted, or it was revoked.
    Unauthorized,
}

impl From<NotLoaded> for SpeakError {
    fn from(_: NotLoaded) -> SpeakError {
        SpeakError::NotLoaded
    }
}

/// Whether the token is one of an accepted set of the device, and was not revoked.
pub(crate) fn is_valid(device: &Device, claims: &Claims) -> bool {
    claims.device && claims.sub == device.id && may_speak(device, &claims.jti, claims.serial)
}

/// Whether a set speaks for a device, and its tokens were not revoked since it had the serial number.
pub(crate) fn may_speak(device: &Device, set: &str, serial: u64) -> bool {
    let set = device.auth_sets.iter().find(|known| known.id == set);
    set.is_some_and(|set| set.status == AuthStatus::Accepted && set.serial == serial)
}

/// The device that a token speaks for: what each rule for a device begins with, since the device may have been refused
/// after its request began.
///
/// # Errors
/// It does not speak for it any more.
pub(crate) fn speaking(work: &mut Work, claims: &Claims) -> Result<Device, SpeakError> {
    let device = work.device(&claims.sub)?.filter(|device| is_valid(device, claims));
    device.ok_or(SpeakError::Unauthorized)
}

/// What [`authenticate`] asks for.
pub(crate) fn keys_of_authenticate(identity: &Identity, policy: Policy) -> Vec<Key> {
    let mut keys = vec![Key::Identity(identity.sha256.clone())];
    if policy.max_devices > 0 {
        keys.push(Key::Count(AuthStatus::Accepted));
    }
    keys
}

/// Decides about a device that asks for a token, and remembers it when it is new.
///
/// # Errors
/// There were no random numbers for a new id.
pub(crate) fn authenticate(
    work: &mut Work,
    identity: &Identity,
    pubkey: &str,
    policy: Policy,
) -> Result<AuthDecision, AdmissionError> {
    let now = work.now();
    let known = match work.device_of_identity(&identity.sha256)? {
        Some(id) => work.device(&id)?,
        None => None,
    };
    let mut device = match known {
        Some(device) => device,
        None if !has_room_for(undecided(work)?, identity.bytes + pubkey.len()) => {
            return Ok(AuthDecision::Unauthorized);
        }
        None => new_device(identity, now)?,
    };
    let known = device.auth_sets.iter().position(|set| set.pubkey == pubkey);
    let at = match known {
        Some(at) => at,
        None => {
            if device.status() <= AuthStatus::Pending && !device.auth_sets.is_empty() {
                let others = undecided(work)?;
                make_room_for(&mut device, others, pubkey.len());
            }
            make_room(&mut device.auth_sets);
            device.auth_sets.push(new_set(pubkey, AuthStatus::Pending, now)?);
            device.auth_sets.len() - 1
        }
    };
    let Some(status) = device.auth_sets.get(at).map(|set| set.status) else {
        return Ok(AuthDecision::Unauthorized);
    };
    let was_accepted = device.status() == AuthStatus::Accepted;
    // A key that is new on a device with an accepted one is for a person to judge, whatever the policy says.
    let promoted = match status {
        AuthStatus::Preauthorized => was_accepted || has_place(work, policy)?,
        AuthStatus::Pending => policy.auto_accept && !was_accepted && has_place(work, policy)?,
        AuthStatus::Accepted | AuthStatus::Rejected | AuthStatus::Noauth => false,
    };
    if promoted {
        accept(&mut device, at, now);
    }
    let decision = match device.auth_sets.get(at) {
        Some(set) if set.status == AuthStatus::Accepted => AuthDecision::Accepted {
            device: device.id.clone(),
            number: device.number,
            auth_set: set.id.clone(),
            serial: set.serial,
        },
        Some(_) | None => AuthDecision::Unauthorized,
    };
    if promoted || known.is_none() {
        work.put_device(device)?;
    }
    Ok(decision)
}

/// Accepts a device before it is heard of. With `force`, a set that is there already is made anew. The id of the device.
///
/// # Errors
/// Why it was not done.
pub(crate) fn preauthorize(
    work: &mut Work,
    identity: &Identity,
    pubkey: &str,
    force: bool,
) -> Result<String, AdmissionError> {
    let now = work.now();
    let known = match work.device_of_identity(&identity.sha256)? {
        Some(id) => work.device(&id)?,
        None => None,
    };
    let mut device = match known {
        Some(device) if !force => return Err(AdmissionError::Exists(device.id)),
        Some(device) => device,
        None => new_device(identity, now)?,
    };
    device.auth_sets.retain(|set| set.pubkey != pubkey);
    device.auth_sets.push(new_set(pubkey, AuthStatus::Preauthorized, now)?);
    device.updated = now;
    let id = device.id.clone();
    work.put_device(device)?;
    Ok(id)
}

/// Decides about one set.
///
/// # Errors
/// Why it was not done.
pub(crate) fn admit(
    work: &mut Work,
    device_id: &str,
    set_id: &str,
    admission: Admission,
    policy: Policy,
) -> Result<(), AdmissionError> {
    let now = work.now();
    let mut device = work.device(device_id)?.ok_or(AdmissionError::NotFound)?;
    let was_accepted = device.status() == AuthStatus::Accepted;
    let found = device.auth_sets.iter().position(|set| set.id == set_id);
    let at = found.ok_or(AdmissionError::NotFound)?;
    let set = device.auth_sets.get_mut(at).ok_or(AdmissionError::NotFound)?;
    match (set.status, admission) {
        (AuthStatus::Accepted, Admission::Accept)
        | (AuthStatus::Rejected, Admission::Reject)
        | (AuthStatus::Pending, Admission::Reset) => return Ok(()),
        (AuthStatus::Pending | AuthStatus::Rejected, Admission::Accept) => {
            if !was_accepted && !has_place(work, policy)? {
                return Err(AdmissionError::DeviceLimit);
            }
            accept(&mut device, at, now);
        }
        (AuthStatus::Pending | AuthStatus::Accepted, Admission::Reject) => {
            set.status = AuthStatus::Rejected;
            set.serial += 1;
        }
        (AuthStatus::Rejected, Admission::Reset) => set.status = AuthStatus::Pending,
        (AuthStatus::Preauthorized | AuthStatus::Noauth, _) | (AuthStatus::Accepted, Admission::Reset) => {
            return Err(AdmissionError::BadTransition);
        }
    }
    device.updated = now;
    Ok(work.put_device(device)?)
}

/// Forgets one set. A device without any stays, with its history; only one that was expected and never came goes.
///
/// # Errors
/// There is none.
pub(crate) fn dismiss(
    work: &mut Work,
    device_id: &str,
    set_id: &str,
    active: impl Fn(u32) -> Vec<String>,
) -> Result<(), AdmissionError> {
    let mut device = work.device(device_id)?.ok_or(AdmissionError::NotFound)?;
    if device.auth_sets.iter().all(|set| set.id != set_id) {
        return Err(AdmissionError::NotFound);
    }
    if let [AuthSet { status: AuthStatus::Preauthorized, .. }] = device.auth_sets.as_slice() {
        return decommission(work, device_id, active);
    }
    device.auth_sets.retain(|set| set.id != set_id);
    device.updated = work.now();
    Ok(work.put_device(device)?)
}

/// Forgets a device, and ends what it was at work on or would have been: `active` gives the deployments that list the device
/// with a number, as far as they are known; those that are made at this moment are found here.
///
/// # Errors
/// There is none.
pub(crate) fn decommission(
    work: &mut Work,
    device_id: &str,
    active: impl Fn(u32) -> Vec<String>,
) -> Result<(), AdmissionError> {
    let device = work.device(device_id)?.ok_or(AdmissionError::NotFound)?;
    let configured: Option<Configuration> = work.document(Kind::Configuration, device_id)?;
    let mut deployments = active(device.number);
    deployments.extend(device.active);
    deployments.extend(configured.and_then(|configured| configured.deployment));
    deployments.extend(rollout::gone(work, device.number)?);
    end_for(work, device_id, &deployments, Status::Decommissioned)?;
    Ok(work.remove_device(device_id)?)
}

/// Makes every token of a set invalid.
///
/// # Errors
/// There is no such set.
pub(crate) fn revoke(work: &mut Work, set_id: &str) -> Result<(), AdmissionError> {
    let id = work.device_of_auth_set(set_id)?.ok_or(AdmissionError::NotFound)?;
    let mut device = work.device(&id)?.ok_or(AdmissionError::NotFound)?;
    let set = device.auth_sets.iter_mut().find(|set| set.id == set_id);
    set.ok_or(AdmissionError::NotFound)?.serial += 1;
    Ok(work.put_device(device)?)
}

/// Whether one more device can be accepted.
fn has_place(work: &mut Work, policy: Policy) -> Result<bool, NotLoaded> {
    if policy.max_devices == 0 {
        return Ok(true);
    }
    Ok(work.count(AuthStatus::Accepted)? < policy.max_devices as u64)
}

/// Devices that nobody has decided about, or that were rejected: anybody can make those.
fn undecided(work: &mut Work) -> Result<u64, NotLoaded> {
    Ok(work.count(AuthStatus::Pending)?
        + work.count(AuthStatus::Rejected)?
        + work.count(AuthStatus::Noauth)?)
}

/// Whether a device of that weight may be one more beside `others` that nobody has decided about: when all of those could be
/// as heavy. So only their number has to be known, and who sends much is refused before who sends little.
fn has_room_for(others: u64, weight: usize) -> bool {
    let all = (others + 1).saturating_mul(weight as u64);
    others < limits::UNDECIDED_DEVICES as u64 && all <= limits::UNDECIDED_BYTES as u64
}

/// An undecided device that is too heavy with one key more loses the oldest that nobody has decided about.
fn make_room_for(device: &mut Device, others: u64, key: usize) {
    while !has_room_for(others.saturating_sub(1), weight(device) + key) {
        let Some(at) = oldest(&device.auth_sets, AuthStatus::Pending) else { return };
        device.auth_sets.remove(at);
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
    if let Some(at) = oldest(sets, AuthStatus::Pending).or_else(|| oldest(sets, AuthStatus::Rejected)) {
        sets.remove(at);
    }
}

fn oldest(sets: &[AuthSet], status: AuthStatus) -> Option<usize> {
    let candidates = sets.iter().enumerate().filter(|(_, set)| set.status == status);
    candidates.min_by_key(|(_, set)| set.ts).map(|(at, _)| at)
}

fn new_set(pubkey: &str, status: AuthStatus, now: Timestamp) -> Result<AuthSet, NoRandomness> {
    Ok(AuthSet { id: id::uuid()?, pubkey: pubkey.to_owned(), status, ts: now, serial: 0 })
}

fn new_device(identity: &Identity, now: Timestamp) -> Result<Device, NoRandomness> {
    Ok(Device {
        id: id::uuid()?,
        identity: identity.attributes.clone(),
        identity_sha256: identity.sha256.clone(),
        created: now,
        updated: now,
        auth_sets: Vec::new(),
        group: None,
        number: 0,
        active: None,
        last_finished: 0,
        tags: Default::default(),
        monitor: Default::default(),
    })
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
    use crate::work::testing;

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
    fn who_sends_much_is_refused_before_who_sends_little() {
        assert!(has_room_for(199_999, 600) && !has_room_for(200_000, 1));
        assert!(has_room_for(10_000, 8_192) && !has_room_for(20_000, 8_192));
        let mut device = new_device(&Identity::parse("{\"mac\":\"a\"}").unwrap(), Timestamp(1)).unwrap();
        device.auth_sets = vec![set(1, AuthStatus::Rejected), set(2, AuthStatus::Pending)];
        make_room_for(&mut device, 10, 600);
        assert_eq!(device.auth_sets.len(), 2);
        make_room_for(&mut device, 200_000, 700);
        assert_eq!(device.auth_sets, [set(1, AuthStatus::Rejected)], "a refusal is not forgotten");
    }

    /// Runs a rule on a fleet of nothing but what `work` has.
    fn run<T>(work: &mut Work, rule: impl FnMut(&mut Work) -> Result<T, AdmissionError>) -> T {
        let may_ask = |key: &Key| {
            matches!(
                key,
                Key::Device(_) | Key::Identity(_) | Key::AuthSet(_) | Key::Count(_) | Key::Document(..)
            )
        };
        testing::run(work, may_ask, rule).unwrap()
    }

    #[test]
    fn a_device_is_remembered_accepted_revoked_and_forgotten() {
        let mut work = Work::new(Timestamp(1));
        let policy = Policy { auto_accept: false, max_devices: 1 };
        let identity = Identity::parse("{\"mac\":\"a\"}").unwrap();
        for _ in 0..2 {
            let decision = run(&mut work, |work| authenticate(work, &identity, "key", policy));
            assert_eq!(decision, AuthDecision::Unauthorized);
        }
        let id = run(&mut work, |work| Ok(work.device_of_identity(&identity.sha256)?)).unwrap();
        let device = run(&mut work, |work| Ok(work.device(&id)?)).unwrap();
        let set = &device.auth_sets[0].id;
        run(&mut work, |work| admit(work, &id, set, Admission::Accept, policy));
        let accepted =
            |serial| AuthDecision::Accepted { device: id.clone(), number: 0, auth_set: set.clone(), serial };
        assert_eq!(run(&mut work, |work| authenticate(work, &identity, "key", policy)), accepted(0));
        run(&mut work, |work| revoke(work, set));
        assert_eq!(run(&mut work, |work| authenticate(work, &identity, "key", policy)), accepted(1));
        // There is one device, and no place for another one.
        let other = Identity::parse("{\"mac\":\"b\"}").unwrap();
        let policy = Policy { auto_accept: true, ..policy };
        let decision = run(&mut work, |work| authenticate(work, &other, "key", policy));
        assert_eq!(decision, AuthDecision::Unauthorized);
        run(&mut work, |work| decommission(work, &id, |_| Vec::new()));
        assert_eq!(run(&mut work, |work| Ok(work.device(&id)?)), None);
        assert_eq!(run(&mut work, |work| Ok(work.device_of_auth_set(set)?)), None);
        let decision = run(&mut work, |work| authenticate(work, &other, "key", policy));
        assert!(matches!(decision, AuthDecision::Accepted { .. }));
    }
}
