//! What a device waits for besides its phase: the hours at which it may begin, and the download budget. Nobody is told when
//! that is over: each question decides anew.

use std::collections::BTreeMap;

use super::choice::{self, Request};
use super::offer::Candidate;
use crate::model::time::Timestamp;
use crate::model::{Attribute, Budget, Day, Deployment, Spent, Status, Window, Windows};
use crate::work::{NotLoaded, Work};

const DAYS: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];
/// No place is further away from UTC.
const MOST_OFFSET: i64 = 18 * 60;
const HOUR_SECONDS: u64 = 3600;
const WINDOWS: usize = 50;

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

/// Whether the budget lets one more device load so many bytes. A device that was never given anything needs a place as well.
pub(crate) fn budget(deployment: &Deployment, is_new: bool, bytes: u64, now: Timestamp) -> Option<Wait> {
    let budget: &Budget = deployment.budget.as_ref()?;
    let count = |status| deployment.counts.get(&status).copied().unwrap_or(0);
    let loading = count(Status::Pending) + count(Status::Downloading);
    if is_new && budget.in_flight.is_some_and(|most| loading >= most) {
        return Some(Wait::InFlight);
    }
    let spent = spent(deployment, now).bytes;
    // What is larger than the budget of an hour goes as the only one in it.
    let is_over = |most: u64| spent > 0 && spent.saturating_add(bytes) > most;
    budget.bytes_per_hour.is_some_and(is_over).then_some(Wait::Bytes)
}

/// What was given to devices in this hour.
fn spent(deployment: &Deployment, now: Timestamp) -> Spent {
    let hour = now.seconds() / HOUR_SECONDS;
    match deployment.spent {
        Some(spent) if spent.hour == hour => spent,
        Some(_) | None => Spent { hour, bytes: 0 },
    }
}

/// Notes what a device was given.
pub(super) fn spend(deployment: &mut Deployment, bytes: u64, now: Timestamp) {
    if deployment.budget.as_ref().is_some_and(|budget| budget.bytes_per_hour.is_some()) {
        let before = spent(deployment, now);
        deployment.spent = Some(Spent { bytes: before.bytes.saturating_add(bytes), ..before });
    }
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
    let is_installed = request.artifact_name == deployment.artifact_name && !deployment.force_installation;
    let chosen = choice::choose(&candidate.artifacts, request).filter(|_| !is_installed);
    // Who has nothing to load only has to hear of it.
    Ok(chosen.and_then(|artifact| budget(deployment, is_new, artifact.size, now)))
}
