//! What a device waits for besides its phase: the hours at which it may begin, and the download budget. Nobody is told when
//! that is over: each question decides anew.

use std::collections::BTreeMap;

use super::choice::{self, Request};
use super::offer::Candidate;
use super::put;
use crate::model::time::Timestamp;
use crate::model::{
    Attribute, Budget, Day, Deployment, DeviceDeployment, FleetBudget, Spent, Window, Windows,
};
use crate::work::{Kind, NotLoaded, Work};

const DAYS: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];
/// No place is further away from UTC.
const MOST_OFFSET: i64 = 18 * 60;
const HOUR_SECONDS: u64 = 3600;
const WINDOWS: usize = 50;
/// How long a place is kept for a device that says nothing: devices ask every half an hour, and say at once that they load. One
/// that loads for longer goes on without a place.
const PLACE_SECONDS: u64 = 30 * 60;
/// The document of what all devices together may load.
pub(crate) const FLEET: &str = "fleet";

/// What is in the way of a device that has not begun, or that tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It is none of the hours at which it may begin.
    Closed,
    /// Its local time is not known.
    NoLocalTime,
    /// As many devices as may are loading.
    InFlight,
    /// The bytes of this hour are spent.
    Bytes,
}

/// Minutes of a day as `HH:MM`.
fn minutes(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| match digits.len() {
        2 if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<u64>().ok(),
        _ => None,
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= 24 * 60).then_some(all)
}

/// Minutes east of UTC: `Z`, `UTC`, `+02:00` or `-0530`.
fn offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "UTC") {
        return Some(0);
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+')?),
    };
    let digits: String = match digits.len() {
        5 => digits.to_owned(),
        4 => digits.chars().take(2).chain([':']).chain(digits.chars().skip(2)).collect(),
        _ => return None,
    };
    let minutes = i64::try_from(minutes(&digits)?).ok()?;
    (minutes <= MOST_OFFSET).then_some(sign * minutes)
}

/// What is wrong with a budget.
pub(crate) fn check_budget(budget: &Budget) -> Result<(), &'static str> {
    let Budget { bytes_per_hour, in_flight } = *budget;
    match bytes_per_hour.or(in_flight).is_some() && bytes_per_hour != Some(0) && in_flight != Some(0) {
        true => Ok(()),
        false => Err("bytes_per_hour or in_flight has to be there, and above 0"),
    }
}

/// What is wrong with windows.
pub(super) fn check(windows: &Windows) -> Result<(), &'static str> {
    if windows.open.is_empty() || windows.open.len() > WINDOWS {
        return Err("open lists 1 to 50 windows");
    }
    if windows.default_offset.as_ref().is_some_and(|text| offset(text).is_none()) {
        return Err("default_offset is a difference from UTC such as +02:00");
    }
    let is_good = |window: &Window| minutes(&window.from).is_some() && minutes(&window.to).is_some();
    if !windows.open.iter().all(is_good) {
        return Err("from and to are times of the day such as 22:30");
    }
    Ok(())
}

/// Whether a device with these attributes may begin at this hour.
pub(crate) fn window(
    windows: &Windows,
    attributes: &BTreeMap<String, Attribute>,
    now: Timestamp,
) -> Option<Wait> {
    let reported = attributes.get(&windows.attribute).and_then(|attribute| {
        let value = &attribute.value;
        let number = value.as_i64().filter(|minutes| minutes.abs() <= MOST_OFFSET);
        value.as_str().and_then(offset).or(number)
    });
    let Some(offset) = reported.or_else(|| windows.default_offset.as_deref().and_then(offset)) else {
        return Some(Wait::NoLocalTime);
    };
    let local = i64::try_from(now.seconds()).unwrap_or(i64::MAX).saturating_add(offset * 60).max(0);
    let (day, minute) = (local / 86_400, (local % 86_400).unsigned_abs() / 60);
    // The first day of this count was a Thursday.
    let name = |day: i64| DAYS.get(usize::try_from((day + 3).rem_euclid(7)).unwrap_or(0)).copied();
    let is_open = |window: &Window| {
        let on = |day: i64| window.days.is_empty() || name(day).is_some_and(|day| window.days.contains(&day));
        let (Some(from), Some(to)) = (minutes(&window.from), minutes(&window.to)) else { return false };
        if from < to {
            on(day) && (from..to).contains(&minute)
        } else {
            // Over midnight: it belongs to the day on which it begins.
            (on(day) && minute >= from) || (on(day - 1) && minute < to)
        }
    };
    (!windows.open.iter().any(is_open)).then_some(Wait::Closed)
}

/// Whether a budget lets one more device load so many bytes, when `loading` do. A device that was never given anything needs a
/// place as well.
fn over(budget: Budget, loading: u64, spent: Spent, is_new: bool, bytes: u64) -> Option<Wait> {
    if is_new && budget.in_flight.is_some_and(|most| loading >= most) {
        return Some(Wait::InFlight);
    }
    // What is larger than the budget of an hour goes as the only one in it.
    let is_over = |most: u64| spent.bytes > 0 && spent.bytes.saturating_add(bytes) > most;
    budget.bytes_per_hour.is_some_and(is_over).then_some(Wait::Bytes)
}

/// Whether the budget of a deployment lets one more device load so many bytes.
pub(crate) fn budget(deployment: &Deployment, is_new: bool, bytes: u64, now: Timestamp) -> Option<Wait> {
    over(deployment.budget?, deployment.loading(), spent(deployment.spent, now), is_new, bytes)
}

/// Whether the budget of the fleet does, when so many devices load in all deployments.
pub(crate) fn fleet_budget(
    fleet: &FleetBudget,
    loading: u64,
    is_new: bool,
    bytes: u64,
    now: Timestamp,
) -> Option<Wait> {
    over(fleet.budget, loading, spent(fleet.spent, now), is_new, bytes)
}

/// Whether a device has had a place among those that load for long, and has said nothing meanwhile.
pub(crate) fn has_lapsed(record: &DeviceDeployment, now: Timestamp) -> bool {
    let given = record.given.unwrap_or(record.created);
    record.status.needs_place() && !record.lapsed && given.plus_seconds(PLACE_SECONDS) <= now
}

/// Takes the place of a device that says nothing. When it asks again, it waits for one with the others. Whether it had one.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn release(work: &mut Work, deployment: &str, device: &str) -> Result<bool, NotLoaded> {
    let is_active = work.deployment(deployment)?.is_some_and(|known| known.finished.is_none());
    let record = work.record(deployment, device)?;
    let now = work.now();
    match record.filter(|record| is_active && has_lapsed(record, now)) {
        Some(record) => put(work, DeviceDeployment { lapsed: true, ..record }).map(|()| true),
        None => Ok(false),
    }
}

/// What was given to devices in this hour.
fn spent(known: Option<Spent>, now: Timestamp) -> Spent {
    let hour = now.seconds() / HOUR_SECONDS;
    known.filter(|spent| spent.hour == hour).unwrap_or(Spent { hour, bytes: 0 })
}

/// What all devices together were given in this hour.
pub(crate) fn fleet_spent(fleet: &FleetBudget, now: Timestamp) -> u64 {
    spent(fleet.spent, now).bytes
}

/// Notes what a device was given.
pub(super) fn spend(deployment: &mut Deployment, bytes: u64, now: Timestamp) {
    if deployment.budget.as_ref().is_some_and(|budget| budget.bytes_per_hour.is_some()) {
        let before = spent(deployment.spent, now);
        deployment.spent = Some(Spent { bytes: before.bytes.saturating_add(bytes), ..before });
    }
}

/// Notes for the budget of the fleet what a device was given.
pub(super) fn spend_of_fleet(work: &mut Work, bytes: u64) -> Result<(), NotLoaded> {
    let Some(fleet) = work.document::<FleetBudget>(Kind::Budget, FLEET)? else { return Ok(()) };
    if fleet.budget.bytes_per_hour.is_none() {
        return Ok(());
    }
    let before = spent(fleet.spent, work.now());
    let spent = Some(Spent { bytes: before.bytes.saturating_add(bytes), ..before });
    work.put_document(Kind::Budget, FLEET, Some(&FleetBudget { spent, ..fleet }))
}

/// Says what all devices together may load; with `None`, as much as they like. What this hour was given stays.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn set_fleet_budget(work: &mut Work, budget: Option<Budget>) -> Result<(), NotLoaded> {
    let before: Option<FleetBudget> = work.document(Kind::Budget, FLEET)?;
    let spent = before.and_then(|before| before.spent);
    let now = budget.map(|budget| FleetBudget { budget, spent });
    work.put_document(Kind::Budget, FLEET, now.as_ref())
}

/// What a device would load that has not begun, or that tries again; `None` when it only has to hear that it has it.
fn load(deployment: &Deployment, candidate: &Candidate, request: &Request) -> Option<u64> {
    let is_installed = request.artifact_name == deployment.artifact_name && !deployment.force_installation;
    let chosen = choice::choose(&candidate.artifacts, request).filter(|_| !is_installed);
    chosen.map(|artifact| artifact.size)
}

/// Whether the budget of the fleet is in a device's way. `active` are the deployments whose devices are counted. It reads what
/// every offer changes, so it comes last.
pub(super) fn waits_for_fleet(
    work: &mut Work,
    deployment: &Deployment,
    candidate: &Candidate,
    request: &Request,
    is_new: bool,
    active: &[String],
) -> Result<bool, NotLoaded> {
    let Some(bytes) = load(deployment, candidate, request) else { return Ok(false) };
    let Some(fleet) = work.document::<FleetBudget>(Kind::Budget, FLEET)? else { return Ok(false) };
    let mut loading = Ok(0);
    if fleet.budget.in_flight.is_some() {
        // All are asked for before it ends because one is not loaded: they are loaded at once.
        for id in active {
            let own = work.deployment(id).map(|known| known.map_or(0, |known| known.loading()));
            loading = own.and_then(|own| Ok(loading? + own));
        }
    }
    let loading = loading?;
    Ok(fleet_budget(&fleet, loading, is_new, bytes, work.now()).is_some())
}

/// What a device waits for that has not begun, or that tries again.
pub(super) fn wait(
    work: &mut Work,
    deployment: &Deployment,
    device: &str,
    candidate: &Candidate,
    request: &Request,
    is_new: bool,
) -> Result<Option<Wait>, NotLoaded> {
    let now = work.now();
    if let Some(windows) = &deployment.windows {
        if let Some(wait) = window(windows, &work.inventory(device)?.attributes, now) {
            return Ok(Some(wait));
        }
    }
    if deployment.budget.is_none() {
        return Ok(None);
    }
    // Who has nothing to load only has to hear of it.
    Ok(load(deployment, candidate, request).and_then(|bytes| budget(deployment, is_new, bytes, now)))
}
