//! Rules by which a deployment stops by itself: which make sense, what they count, when they stop it, and what they do.
//!
//! Failures are counted where a device reports them, and alerts where they arrive, each in its transaction. A rule is looked at when
//! there is more of what it counts, or first enough to count it, so what a person let go on is not stopped again by what was known
//! then.

use serde::{Deserialize, Serialize};

use super::{FAILURES, finish};
use crate::domain::mail;
use crate::model::time::Timestamp;
use crate::model::{Deployment, DeviceDeployment, Status, StopAction, StopRule};
use crate::work::{Kind, NotLoaded, Work};

/// Rules of one deployment.
const RULES: usize = 20;
/// Deployments for which the alerts of one device count: those that it got last. It raises one, or gets the next update, long
/// before there are so many.
const WATCHED: usize = 10;

/// What has happened, whereupon rules are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// A device has failed.
    Failed,
    /// A device has got it.
    Got,
    /// One device more has ended it.
    Ended,
    /// A device that has got it has raised a critical alert.
    Alerted,
}

/// What a rule counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Devices that have failed.
    Failures,
    /// Devices that have raised a critical alert after they got it.
    Alerts,
}

/// More than that is too much.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Most {
    Devices(u64),
    Percent(f64),
}

/// What a rule counts, and how much of it is not too much; `None` unless it says exactly one of that.
fn line(rule: &StopRule) -> Option<(Counted, Most)> {
    let StopRule { failed_devices, failed_percent, alerted_devices, alerted_percent, .. } = *rule;
    let lines = [
        failed_devices.map(|most| (Counted::Failures, Most::Devices(most))),
        failed_percent.map(|most| (Counted::Failures, Most::Percent(most))),
        alerted_devices.map(|most| (Counted::Alerts, Most::Devices(most))),
        alerted_percent.map(|most| (Counted::Alerts, Most::Percent(most))),
    ];
    let mut said = lines.into_iter().flatten();
    let line = said.next();
    line.filter(|_| said.next().is_none())
}

fn counts_alerts(rule: &StopRule) -> bool {
    line(rule).is_some_and(|(counted, _)| counted == Counted::Alerts)
}

/// Whether the times of failures have to be kept for a rule.
pub(super) fn remembers_failures(rule: &StopRule) -> bool {
    rule.failed_devices.is_some() && rule.within_seconds.is_some()
}

/// What is wrong with rules.
pub(super) fn check(rules: &[StopRule]) -> Result<(), &'static str> {
    if rules.len() > RULES {
        return Err("there are more than 20");
    }
    rules.iter().try_for_each(check_one)
}

fn check_one(rule: &StopRule) -> Result<(), &'static str> {
    let StopRule { within_seconds, after_devices, .. } = *rule;
    match line(rule)
        .ok_or("it has one of failed_devices, failed_percent, alerted_devices and alerted_percent")?
    {
        (_, Most::Percent(percent)) if !(0.0..100.0).contains(&percent) => {
            Err("failed_percent and alerted_percent are at least 0 and below 100")
        }
        (_, Most::Devices(_)) if after_devices.is_some() => {
            Err("after_devices is for failed_percent and alerted_percent")
        }
        (Counted::Failures, Most::Percent(_)) if within_seconds.is_some() => {
            Err("within_seconds is not for failed_percent")
        }
        // As many failures are remembered.
        (Counted::Failures, Most::Devices(count)) if within_seconds.is_some() && count >= FAILURES as u64 => {
            Err("failed_devices with within_seconds is below 1000")
        }
        // It would never stop anything.
        (Counted::Alerts, _) if within_seconds == Some(0) => {
            Err("within_seconds is above 0 for alerted_devices and alerted_percent")
        }
        (Counted::Failures | Counted::Alerts, Most::Devices(_) | Most::Percent(_)) => Ok(()),
    }
}

/// Why a deployment is to stop by itself, and what is done.
pub(super) struct Reason {
    text: String,
    action: StopAction,
}

/// Whether one of its rules stops a deployment after this.
pub(super) fn stops(deployment: &Deployment, news: &[News], now: Timestamp) -> Option<Reason> {
    if deployment.finished.is_some() {
        return None;
    }
    // What ends more comes first.
    let reasons = || (0..deployment.stop.len()).filter_map(|at| reason(deployment, at, news, now));
    let is_new = |reason: &Reason| match reason.action {
        StopAction::Abort => true,
        StopAction::Hold => deployment.held.is_none(),
    };
    reasons().find(|reason| reason.action == StopAction::Abort).or_else(|| reasons().find(is_new))
}

/// What the rule at a place says.
fn reason(deployment: &Deployment, at: usize, news: &[News], now: Timestamp) -> Option<Reason> {
    let rule = deployment.stop.get(at)?;
    let (counted, most) = line(rule)?;
    let is_news = |news: &News| match (news, counted) {
        (News::Failed, Counted::Failures) | (News::Alerted, Counted::Alerts) => true,
        // Alerts and failures may have come before there were enough devices.
        (News::Got, Counted::Alerts) => rule.after_devices == Some(got(deployment)),
        (News::Ended, Counted::Failures) => rule.after_devices == Some(deployment.finished_records()),
        (News::Failed | News::Ended, Counted::Alerts) | (News::Got | News::Alerted, Counted::Failures) => {
            false
        }
    };
    if !news.iter().any(is_news) {
        return None;
    }
    let text = match counted {
        Counted::Failures => of_failures(deployment, rule, most, now),
        Counted::Alerts => of_alerts(deployment, rule, most, at),
    };
    Some(Reason { text: text?, action: rule.action })
}

fn of_failures(deployment: &Deployment, rule: &StopRule, most: Most, now: Timestamp) -> Option<String> {
    let failed = match rule.within_seconds {
        None => deployment.counts.get(&Status::Failure).copied().unwrap_or(0),
        Some(seconds) => {
            let recent = |time: &&Timestamp| time.plus_seconds(seconds) >= now;
            deployment.failures.iter().filter(recent).count() as u64
        }
    };
    match most {
        Most::Devices(most) => (failed > most).then(|| match rule.within_seconds {
            None => format!("{} failed, more than {most}", have(failed)),
            Some(seconds) => format!("{} failed in {seconds} seconds, more than {most}", have(failed)),
        }),
        Most::Percent(most) => {
            let ended = deployment.finished_records();
            is_too_much(rule, failed, ended, most)
                .then(|| format!("{failed} of {ended} devices have failed, more than {most} percent"))
        }
    }
}

/// Who has done something.
fn have(devices: u64) -> String {
    format!("{devices} {}", if devices == 1 { "device has" } else { "devices have" })
}

/// How many devices have got it.
fn got(deployment: &Deployment) -> u64 {
    deployment.counts.get(&Status::Success).copied().unwrap_or(0)
}

fn of_alerts(deployment: &Deployment, rule: &StopRule, most: Most, at: usize) -> Option<String> {
    let alerted = deployment.alerted.get(at).copied()?;
    let within = rule.within_seconds.map(|seconds| format!("within {seconds} seconds "));
    let what = format!("raised a critical alert {}after the update", within.unwrap_or_default());
    match most {
        Most::Devices(most) => {
            (alerted > most).then(|| format!("{} {what}, more than {most}", have(alerted)))
        }
        Most::Percent(most) => {
            let got = got(deployment);
            is_too_much(rule, alerted, got, most)
                .then(|| format!("{alerted} of {got} devices have {what}, more than {most} percent"))
        }
    }
}

/// Whether a part is more than so many percent of the whole, which is large enough to say so.
fn is_too_much(rule: &StopRule, part: u64, whole: u64, most: f64) -> bool {
    whole >= rule.after_devices.unwrap_or(1) && part as f64 * 100.0 / whole.max(1) as f64 > most
}

/// Does what a rule says.
pub(super) fn stop(work: &mut Work, mut deployment: Deployment, reason: &Reason) -> Result<(), NotLoaded> {
    deployment.held = Some(reason.text.clone());
    mail::stopped(work, &deployment, &reason.text, reason.action == StopAction::Abort)?;
    match reason.action {
        StopAction::Hold => work.put_deployment(deployment),
        StopAction::Abort => finish::end(work, deployment),
    }
}

/// A deployment that a device has got, and for which its alerts count. Those of a device are a document: an alert says whose it
/// is, and not what the device got before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    /// Its id.
    deployment: String,
    /// Whether the device has been counted: once is enough.
    #[serde(default)]
    alerted: bool,
}

/// A device has got a deployment: from now on its alerts count for it, if one of its rules counts alerts.
pub(super) fn watch(work: &mut Work, deployment: &Deployment, device: &str) -> Result<(), NotLoaded> {
    if !deployment.stop.iter().any(counts_alerts) {
        return Ok(());
    }
    let mut watched: Vec<Watched> = work.document(Kind::Watched, device)?.unwrap_or_default();
    if watched.iter().any(|one| one.deployment == deployment.id) {
        return Ok(());
    }
    watched.push(Watched { deployment: deployment.id.clone(), alerted: false });
    let surplus = watched.len().saturating_sub(WATCHED);
    watched.drain(..surplus);
    work.put_document(Kind::Watched, device, Some(&watched))
}

/// A device has raised a critical alert: it counts for the deployments that the device has got.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn alerted(work: &mut Work, device: &str) -> Result<(), NotLoaded> {
    let Some(mut watched) = work.document::<Vec<Watched>>(Kind::Watched, device)? else { return Ok(()) };
    let before = watched.clone();
    let open = || before.iter().filter(|one| !one.alerted).map(|one| &one.deployment);
    // All are asked for before it ends because one is not loaded: they are loaded at once.
    let known: Vec<_> = open().map(|id| (work.deployment(id), work.record(id, device))).collect();
    let mut counted = Vec::new();
    for (deployment, record) in known {
        counted.push(count(work, deployment?, record?)?);
    }
    let open = watched.iter_mut().filter(|one| !one.alerted);
    open.zip(counted).for_each(|(one, counted)| one.alerted = counted);
    // What was not counted now never is: it is over, too long ago, or taken back.
    watched.retain(|one| one.alerted);
    if watched == before {
        return Ok(());
    }
    work.put_document(Kind::Watched, device, Some(&watched).filter(|watched| !watched.is_empty()))
}

/// Counts a device for the rules in whose time it has raised an alert. Whether there is one.
fn count(
    work: &mut Work,
    deployment: Option<Deployment>,
    record: Option<DeviceDeployment>,
) -> Result<bool, NotLoaded> {
    let Some(mut deployment) = deployment.filter(|deployment| deployment.finished.is_none()) else {
        return Ok(false);
    };
    let got = record.filter(|record| record.status == Status::Success).and_then(|record| record.finished);
    let (Some(got), now) = (got, work.now()) else { return Ok(false) };
    let Deployment { stop: rules, alerted, .. } = &mut deployment;
    alerted.resize(rules.len(), 0);
    let mut is_counted = false;
    for (rule, alerted) in rules.iter().zip(alerted) {
        let is_in_time = rule.within_seconds.is_none_or(|seconds| now <= got.plus_seconds(seconds));
        if counts_alerts(rule) && is_in_time {
            *alerted += 1;
            is_counted = true;
        }
    }
    if is_counted {
        match stops(&deployment, &[News::Alerted], now) {
            Some(reason) => stop(work, deployment, &reason)?,
            None => work.put_deployment(deployment)?,
        }
    }
    Ok(is_counted)
}
