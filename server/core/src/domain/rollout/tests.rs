//! The rules on a fleet that is loaded by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::domain::monitor::{self, Alert, Level, Subject};
use crate::domain::token::Claims;
use crate::model::{
    Artifact, Attribute, AuthSet, AuthStatus, Budget, Canaries, Device, Inventory, PhaseSize, StopAction,
    StopRule, WantedCanaries, Window, Windows,
};
use crate::work::{Key, Kind, Loaded, Write, testing};

const HOUR: u64 = 3_600_000;

/// A fleet of `count` accepted devices, whose numbers begin at 1.
fn fleet(count: u32, now: u64) -> Work {
    let mut work = Work::new(Timestamp(now));
    for number in 1..=count {
        work.load(Loaded::Device(number.to_string(), Some(device(number))));
    }
    work
}

/// One accepted device, and what its token says.
pub(crate) fn one_device() -> (Work, Claims) {
    (fleet(1, 1_000_000), claims(1))
}

fn device(number: u32) -> Device {
    let set = AuthSet {
        id: "set".to_owned(),
        pubkey: String::new(),
        status: AuthStatus::Accepted,
        ts: Timestamp(1),
        serial: 0,
    };
    Device {
        id: number.to_string(),
        identity: BTreeMap::new(),
        identity_sha256: number.to_string(),
        created: Timestamp(1),
        updated: Timestamp(1),
        auth_sets: vec![set],
        group: None,
        number,
        active: None,
        last_finished: 0,
        tags: BTreeMap::new(),
        monitor: BTreeMap::new(),
    }
}

fn claims(number: u32) -> Claims {
    Claims {
        sub: number.to_string(),
        jti: "set".to_owned(),
        iss: String::new(),
        iat: 0,
        exp: u64::MAX,
        device: true,
        user: false,
        serial: 0,
        login: String::new(),
    }
}

fn artifact(id: &str, size: u64, depends: &[(&str, &str)]) -> Arc<Artifact> {
    let depends = depends.iter().map(|(key, value)| ((*key).to_owned(), vec![(*value).to_owned()]));
    Arc::new(Artifact { depends: depends.collect(), size, ..Artifact::plain(id, "release-2", &["testdev"]) })
}

/// Runs a rule as a store does.
fn run<T, E>(work: &mut Work, rule: impl FnMut(&mut Work) -> Result<T, E>) -> Result<T, E> {
    let may_ask =
        |key: &Key| matches!(key, Key::Device(_) | Key::Inventory(_) | Key::Record(..) | Key::Document(..));
    testing::run(work, may_ask, rule)
}

fn new(members: u32) -> NewDeployment {
    NewDeployment {
        artifacts: Vec::new(),
        name: "n".to_owned(),
        artifact_name: "release-2".to_owned(),
        members: (1..=members).collect(),
        ..NewDeployment::default()
    }
}

/// Makes a deployment with the sequence number 1.
fn made(work: &mut Work, new: &NewDeployment) -> String {
    let id = run(work, |work| create(work, new.clone())).unwrap();
    let mut deployment = run(work, |work| work.deployment(&id)).unwrap().unwrap();
    deployment.sequence = 1;
    run(work, |work| work.put_deployment(deployment.clone())).unwrap();
    id
}

fn known(work: &mut Work, id: &str) -> Deployment {
    run(work, |work| work.deployment(id)).unwrap().unwrap()
}

fn ask(work: &mut Work, id: &str, number: u32, provides: &[(&str, &str)]) -> Option<Arc<Artifact>> {
    ask_in_fleet(work, id, number, provides, None)
}

fn ask_in_fleet(
    work: &mut Work,
    id: &str,
    number: u32,
    provides: &[(&str, &str)],
    fleet: Option<&[String]>,
) -> Option<Arc<Artifact>> {
    let artifacts = vec![artifact("full", 100, &[]), artifact("delta", 10, &[("sum", "old")])];
    let candidate = Candidate { deployment: id.to_owned(), artifacts };
    let provides = provides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let request = Request {
        artifact_name: "release-1".to_owned(),
        device_type: "testdev".to_owned(),
        provides,
        complete: true,
    };
    let candidates = [candidate];
    match run(work, |work| next(work, &claims(number), &candidates, &request, fleet)).unwrap() {
        Next::Offer { artifact, .. } => Some(artifact),
        Next::Nothing => None,
        other @ (Next::Make(_) | Next::Conflict) => panic!("{other:?}"),
    }
}

fn report(work: &mut Work, id: &str, number: u32, status: Status) -> Result<(), ReportError> {
    run(work, |work| report_status(work, &claims(number), id, status, None))
}

/// The same fleet later: what the jobs before have changed is what is in the store.
fn later(before: &[&Work], now: u64) -> Work {
    let mut next = Work::new(Timestamp(now));
    // What is loaded first stays, so the newest comes first.
    for work in before.iter().rev() {
        let devices = work.changed_devices().map(|(id, row)| Loaded::Device(id.clone(), row.now.clone()));
        let deployments =
            work.changed_deployments().map(|(id, row)| Loaded::Deployment(id.clone(), row.now.clone()));
        let members = work.changed_members().map(|(id, row)| Loaded::Members(id.clone(), row.now.clone()));
        let records = work.changed_records().map(|((deployment, device), row)| {
            Loaded::Record(deployment.clone(), device.clone(), row.now.clone())
        });
        let documents = work
            .changed_documents()
            .map(|((kind, id), row)| Loaded::Document(*kind, id.clone(), row.now.clone()));
        let own = devices.chain(documents);
        own.chain(deployments).chain(members).chain(records).for_each(|loaded| next.load(loaded));
    }
    for number in 1..=20_u32 {
        next.load(Loaded::Device(number.to_string(), Some(device(number))));
    }
    next
}

#[test]
fn a_deployment_is_over_with_its_last_device() {
    let mut work = fleet(2, 1);
    let id = made(&mut work, &new(2));
    assert_eq!(ask(&mut work, &id, 1, &[]).unwrap().id, "full");
    report(&mut work, &id, 1, Status::Success).unwrap();
    assert_eq!(known(&mut work, &id).finished, None);
    ask(&mut work, &id, 2, &[]);
    report(&mut work, &id, 2, Status::Failure).unwrap();
    let over = known(&mut work, &id);
    assert_eq!((over.finished, over.finished_records()), (Some(Timestamp(1)), 2));
    let device = run(&mut work, |work| work.device("2")).unwrap().unwrap();
    assert_eq!((device.active, device.last_finished), (None, 1));
    assert_eq!(ask(&mut work, &id, 2, &[]), None);
}

#[test]
fn a_device_that_was_not_given_a_deployment_cannot_report_for_it() {
    let mut work = fleet(2, 1);
    let id = made(&mut work, &new(1));
    assert_eq!(report(&mut work, &id, 2, Status::Success), Err(ReportError::NotFound));
    assert_eq!(known(&mut work, &id).records(), 0);
}

#[test]
fn a_smaller_artifact_that_fits_is_offered_and_what_it_saves_is_counted() {
    let mut work = fleet(2, 1);
    let id = made(&mut work, &new(2));
    assert_eq!(ask(&mut work, &id, 1, &[("sum", "old")]).unwrap().id, "delta");
    assert_eq!(ask(&mut work, &id, 1, &[("sum", "old")]).unwrap().id, "delta");
    assert_eq!(ask(&mut work, &id, 2, &[("sum", "other")]).unwrap().id, "full");
    let known = known(&mut work, &id);
    assert_eq!((known.total_size, known.saved_size), (110, 90));
}

/// A deployment for 20 devices: a quarter at once, half of them at 2 hours, the rest at 3.
fn in_three_phases(work: &mut Work) -> String {
    let phases = vec![
        (None, PhaseSize::Percent(25.0)),
        (Some(Timestamp(2 * HOUR)), PhaseSize::Percent(50.0)),
        (Some(Timestamp(3 * HOUR)), PhaseSize::Rest),
    ];
    made(work, &NewDeployment { phases, ..new(20) })
}

/// How many of 20 devices are offered a deployment.
fn offered(work: &mut Work, id: &str) -> usize {
    (1..=20).filter(|number| ask(work, id, *number, &[]).is_some()).count()
}

#[test]
fn each_phase_begins_at_its_time_and_takes_so_many() {
    let mut work = fleet(20, HOUR);
    let id = in_three_phases(&mut work);
    let begun = |work: &mut Work| offered(work, &id);
    assert_eq!((begun(&mut work), begun(&mut work)), (5, 5), "who has begun goes on");
    let mut second = later(&[&work], 2 * HOUR);
    assert_eq!(begun(&mut second), 15);
    let mut third = later(&[&work, &second], 3 * HOUR);
    assert_eq!(begun(&mut third), 20);
    let taken: Vec<u64> = known(&mut third, &id).phases.iter().map(|phase| phase.begun).collect();
    assert_eq!(taken, [5, 10, 5]);
}

#[test]
fn a_clock_that_goes_back_takes_no_phase_back_and_begins_none() {
    let mut work = fleet(20, 2 * HOUR);
    let id = in_three_phases(&mut work);
    let begun = |work: &mut Work| offered(work, &id);
    assert_eq!(begun(&mut work), 15);
    let mut back = later(&[&work], HOUR);
    assert_eq!(begun(&mut back), 15, "who has begun goes on");
    report(&mut back, &id, 1, Status::Success).unwrap();
    let mut on = later(&[&work, &back], 3 * HOUR);
    assert_eq!(begun(&mut on), 19);
    let known = known(&mut on, &id);
    assert_eq!(known.phases.iter().map(|phase| phase.begun).collect::<Vec<_>>(), [5, 10, 5]);
    assert_eq!((known.finished, known.finished_records()), (None, 1));
}

#[test]
fn phases_in_the_past_have_begun() {
    let mut work = fleet(4, 10 * HOUR);
    let phases =
        vec![(Some(Timestamp(HOUR)), PhaseSize::Percent(50.0)), (Some(Timestamp(2 * HOUR)), PhaseSize::Rest)];
    let id = made(&mut work, &NewDeployment { phases, ..new(4) });
    assert_eq!((1..=4).filter(|number| ask(&mut work, &id, *number, &[]).is_some()).count(), 4);
}

#[test]
fn phases_that_make_no_sense_are_refused() {
    let at = |hours: u64| Some(Timestamp(hours * HOUR));
    for phases in [
        vec![(None, PhaseSize::Percent(0.0))],
        vec![(None, PhaseSize::Percent(f64::NAN))],
        vec![(None, PhaseSize::Percent(60.0)), (at(1), PhaseSize::Percent(60.0))],
        vec![(None, PhaseSize::Devices(1)), (at(1), PhaseSize::Percent(60.0))],
        vec![(None, PhaseSize::Devices(3)), (at(1), PhaseSize::Rest)],
        vec![(None, PhaseSize::Rest), (at(1), PhaseSize::Devices(1))],
        vec![(None, PhaseSize::Devices(1)), (None, PhaseSize::Rest)],
        vec![(at(2), PhaseSize::Devices(1)), (at(1), PhaseSize::Rest)],
    ] {
        let wanted = NewDeployment { phases: phases.clone(), ..new(2) };
        let refused = run(&mut fleet(2, 1), |work| create(work, wanted.clone()));
        assert!(matches!(refused, Err(CreateError::Phases(_))), "{phases:?}");
    }
}

#[test]
fn a_device_that_fails_tries_again_as_often_as_it_may() {
    let mut work = fleet(1, 1);
    let id = made(&mut work, &NewDeployment { retries: 2, ..new(1) });
    for _ in 0..2 {
        assert!(ask(&mut work, &id, 1, &[]).is_some());
        report(&mut work, &id, 1, Status::Failure).unwrap();
        assert_eq!(known(&mut work, &id).finished, None);
    }
    assert!(ask(&mut work, &id, 1, &[]).is_some());
    report(&mut work, &id, 1, Status::Failure).unwrap();
    assert!(known(&mut work, &id).finished.is_some());
    let record = run(&mut work, |work| work.record(&id, "1")).unwrap().unwrap();
    assert_eq!((record.attempts, record.status), (2, Status::Failure));
}

fn rule(action: StopAction) -> StopRule {
    StopRule {
        failed_devices: Some(2),
        failed_percent: None,
        alerted_devices: None,
        alerted_percent: None,
        within_seconds: None,
        after_devices: None,
        action,
    }
}

#[test]
fn a_stop_rule_stops_with_the_report_that_crosses_its_line() {
    for action in [StopAction::Hold, StopAction::Abort] {
        let mut work = fleet(6, 1);
        let id = made(&mut work, &NewDeployment { stop: vec![rule(action)], ..new(6) });
        for number in 1..=4 {
            ask(&mut work, &id, number, &[]);
        }
        report(&mut work, &id, 1, Status::Failure).unwrap();
        report(&mut work, &id, 2, Status::Failure).unwrap();
        assert!(ask(&mut work, &id, 5, &[]).is_some(), "two are not more than two");
        report(&mut work, &id, 3, Status::Failure).unwrap();
        assert_eq!(ask(&mut work, &id, 6, &[]), None, "{action:?}");
        let stopped = known(&mut work, &id);
        assert_eq!(stopped.held.as_deref(), Some("3 devices have failed, more than 2"));
        match action {
            StopAction::Hold => {
                report(&mut work, &id, 4, Status::Success).unwrap();
                run(&mut work, |work| hold(work, &id, None, None)).unwrap();
                assert!(ask(&mut work, &id, 6, &[]).is_some(), "a person lets it go on");
            }
            StopAction::Abort => {
                assert_eq!(stopped.all_counts().get(&Status::Aborted), Some(&3));
                assert!(work.writes().iter().any(|write| matches!(write, Write::EndRecords { .. })));
                assert_eq!(report(&mut work, &id, 4, Status::Success), Err(ReportError::Aborted));
            }
        }
    }
}

#[test]
fn a_part_of_failures_counts_with_the_device_that_makes_enough_of_them_however_it_ends() {
    let part = |after| StopRule {
        failed_devices: None,
        failed_percent: Some(50.0),
        after_devices: Some(after),
        ..rule(StopAction::Hold)
    };
    let mut work = fleet(8, 1);
    let id = made(&mut work, &NewDeployment { stop: vec![part(3)], ..new(8) });
    for number in 1..=5 {
        ask(&mut work, &id, number, &[]);
    }
    (1..=2).for_each(|number| report(&mut work, &id, number, Status::Failure).unwrap());
    assert_eq!(known(&mut work, &id).held, None, "two are not enough to tell");
    report(&mut work, &id, 3, Status::Success).unwrap();
    let held = known(&mut work, &id).held;
    assert_eq!(held.as_deref(), Some("2 of 3 devices have failed, more than 50 percent"));
    // What a person lets go on is stopped by more failures only.
    let mut going = known(&mut work, &id);
    going.held = None;
    run(&mut work, |work| work.put_deployment(going.clone())).unwrap();
    report(&mut work, &id, 1, Status::Success).unwrap();
    report(&mut work, &id, 1, Status::Failure).unwrap();
    assert!(known(&mut work, &id).held.is_some(), "one has failed again");
    run(&mut work, |work| work.put_deployment(going.clone())).unwrap();
    report(&mut work, &id, 4, Status::Success).unwrap();
    assert_eq!(known(&mut work, &id).held, None);
}

#[test]
fn failures_of_before_the_window_do_not_count() {
    let mut work = fleet(6, 1000);
    let stop = vec![StopRule { within_seconds: Some(60), ..rule(StopAction::Hold) }];
    let id = made(&mut work, &NewDeployment { stop, ..new(6) });
    for (number, now) in [(1, 0), (2, 10_000), (3, 100_000), (4, 110_000)] {
        work = later(&[&work], 1000 + now);
        ask(&mut work, &id, number, &[]);
        report(&mut work, &id, number, Status::Failure).unwrap();
    }
    assert_eq!(known(&mut work, &id).held, None);
    ask(&mut work, &id, 5, &[]);
    report(&mut work, &id, 5, Status::Failure).unwrap();
    assert!(known(&mut work, &id).held.is_some());
}

#[test]
fn the_failure_of_the_last_device_ends_a_deployment_also_where_a_rule_would_hold_it() {
    let mut work = fleet(1, 1);
    let stop = vec![StopRule { failed_devices: Some(0), ..rule(StopAction::Hold) }];
    let id = made(&mut work, &NewDeployment { stop, ..new(1) });
    ask(&mut work, &id, 1, &[]);
    report(&mut work, &id, 1, Status::Failure).unwrap();
    assert_eq!(known(&mut work, &id).finished, Some(Timestamp(1)));
}

/// More devices than that.
fn alerted(most: u64, action: StopAction) -> StopRule {
    StopRule { failed_devices: None, alerted_devices: Some(most), ..rule(action) }
}

/// A device gets a deployment.
fn get(work: &mut Work, id: &str, number: u32) {
    assert!(ask(work, id, number, &[]).is_some(), "{number}");
    report(work, id, number, Status::Success).unwrap();
}

fn alert(work: &mut Work, number: u32, level: Level) {
    let subject = Subject {
        name: "disk".to_owned(),
        kind: "log".to_owned(),
        status: String::new(),
        details: serde_json::Map::new(),
    };
    let alerts = [Alert { name: "n".to_owned(), level, subject, timestamp: None }];
    run(work, |work| monitor::alert(work, &claims(number), &alerts)).unwrap();
}

#[test]
fn alerts_of_devices_that_have_got_it_stop_it() {
    for action in [StopAction::Hold, StopAction::Abort] {
        let mut work = fleet(6, 1);
        let id = made(&mut work, &NewDeployment { stop: vec![alerted(1, action)], ..new(6) });
        (1..=2).for_each(|number| get(&mut work, &id, number));
        ask(&mut work, &id, 3, &[]);
        alert(&mut work, 1, Level::Critical);
        assert_eq!(known(&mut work, &id).held, None, "one is not more than one");
        alert(&mut work, 2, Level::Critical);
        let stopped = known(&mut work, &id);
        assert_eq!(
            stopped.held.as_deref(),
            Some("2 devices have raised a critical alert after the update, more than 1")
        );
        assert_eq!(ask(&mut work, &id, 4, &[]), None, "{action:?}");
        match action {
            StopAction::Hold => {
                report(&mut work, &id, 3, Status::Success).unwrap();
                run(&mut work, |work| hold(work, &id, None, None)).unwrap();
                get(&mut work, &id, 4);
                assert_eq!(known(&mut work, &id).held, None, "a person lets it go on");
                alert(&mut work, 4, Level::Critical);
                assert!(known(&mut work, &id).held.is_some(), "one more stops it again");
            }
            StopAction::Abort => {
                assert_eq!(stopped.all_counts().get(&Status::Aborted), Some(&4));
                assert_eq!(report(&mut work, &id, 3, Status::Success), Err(ReportError::Aborted));
            }
        }
    }
}

#[test]
fn a_device_counts_once_and_only_when_it_has_got_it() {
    let mut work = fleet(6, 1);
    let stop = vec![alerted(1, StopAction::Hold)];
    let id = made(&mut work, &NewDeployment { stop, retries: 1, ..new(5) });
    let other = made(&mut work, &new(6));
    let counted = |work: &mut Work| known(work, &id).alerted;
    alert(&mut work, 1, Level::Critical);
    assert!(ask(&mut work, &id, 1, &[]).is_some());
    alert(&mut work, 1, Level::Critical);
    assert_eq!(counted(&mut work), [] as [u64; 0], "before it has got it");
    report(&mut work, &id, 1, Status::Success).unwrap();
    alert(&mut work, 1, Level::Ok);
    assert_eq!(counted(&mut work), [] as [u64; 0], "all is well");
    alert(&mut work, 1, Level::Critical);
    assert_eq!(counted(&mut work), [1]);
    alert(&mut work, 1, Level::Ok);
    alert(&mut work, 1, Level::Critical);
    assert_eq!(counted(&mut work), [1], "once, and all is well does not take it back");
    for status in [Status::Failure, Status::Success] {
        report(&mut work, &id, 1, status).unwrap();
    }
    alert(&mut work, 1, Level::Critical);
    assert_eq!(counted(&mut work), [1], "also when it has got it again");
    // Who failed has not got it, and who is not one of its devices neither.
    ask(&mut work, &id, 2, &[]);
    report(&mut work, &id, 2, Status::Failure).unwrap();
    alert(&mut work, 2, Level::Critical);
    get(&mut work, &other, 6);
    alert(&mut work, 6, Level::Critical);
    assert_eq!(counted(&mut work), [1]);
    assert_eq!(known(&mut work, &other).alerted, [] as [u64; 0]);
    assert_eq!(known(&mut work, &id).held, None);
}

#[test]
fn an_alert_counts_for_each_deployment_that_the_device_has_got_and_that_goes_on() {
    let mut work = fleet(3, 1);
    let watched = |work: &mut Work| run(work, |work| work.document::<serde_json::Value>(Kind::Watched, "1"));
    let stop = vec![alerted(1, StopAction::Hold)];
    let over = made(&mut work, &NewDeployment { stop: stop.clone(), ..new(1) });
    get(&mut work, &over, 1);
    let [one, two] = [2, 3].map(|sequence| {
        let id = made(&mut work, &NewDeployment { stop: stop.clone(), ..new(2) });
        let numbered = Deployment { sequence, ..known(&mut work, &id) };
        run(&mut work, |work| work.put_deployment(numbered.clone())).unwrap();
        get(&mut work, &id, 1);
        id
    });
    alert(&mut work, 1, Level::Critical);
    assert_eq!(known(&mut work, &over).alerted, [] as [u64; 0]);
    assert_eq!((known(&mut work, &one).alerted, known(&mut work, &two).alerted), (vec![1], vec![1]));
    let kept = json!([{ "deployment": one, "alerted": true }, { "deployment": two, "alerted": true }]);
    assert_eq!(watched(&mut work), Ok(Some(kept)));
}

#[test]
fn what_is_kept_of_a_device_for_its_alerts_is_bounded() {
    let mut work = fleet(1, 1);
    let stop = vec![alerted(1, StopAction::Hold)];
    let deployment = known_with_rules(&mut work, stop);
    for number in 0..30 {
        let one = Deployment { id: number.to_string(), ..deployment.clone() };
        run(&mut work, |work| super::stop::watch(work, &one, "1")).unwrap();
    }
    let kept = run(&mut work, |work| work.document::<Vec<serde_json::Value>>(Kind::Watched, "1"));
    let kept = kept.unwrap().unwrap();
    assert_eq!((kept.len(), &kept[9]["deployment"]), (10, &json!("29")));
}

fn known_with_rules(work: &mut Work, stop: Vec<StopRule>) -> Deployment {
    let id = made(work, &NewDeployment { stop, ..new(1) });
    known(work, &id)
}

#[test]
fn an_alert_counts_within_its_time_and_a_percentage_when_enough_have_got_it() {
    let mut first = fleet(10, 1000);
    let soon = StopRule { within_seconds: Some(60), ..alerted(0, StopAction::Abort) };
    let many = StopRule {
        alerted_devices: None,
        alerted_percent: Some(50.0),
        after_devices: Some(6),
        ..alerted(0, StopAction::Hold)
    };
    let id = made(&mut first, &NewDeployment { stop: vec![soon, many], ..new(10) });
    (1..=2).for_each(|number| get(&mut first, &id, number));
    let mut second = later(&[&first], 62_000);
    (1..=2).for_each(|number| alert(&mut second, number, Level::Critical));
    assert_eq!(known(&mut second, &id).alerted, [0, 2], "too late for one of them");
    assert_eq!(known(&mut second, &id).held, None, "two have got it, and six are enough");
    (3..=5).for_each(|number| get(&mut second, &id, number));
    let mut third = later(&[&first, &second], 122_000);
    alert(&mut third, 3, Level::Critical);
    let stopped = known(&mut third, &id);
    assert_eq!((stopped.alerted, stopped.finished), (vec![1, 3], Some(Timestamp(122_000))), "just in time");
    assert_eq!(
        stopped.held.as_deref(),
        Some("1 device has raised a critical alert within 60 seconds after the update, more than 0")
    );
    let mut work = fleet(4, 1000);
    let early = StopRule {
        alerted_devices: None,
        alerted_percent: Some(50.0),
        after_devices: Some(3),
        ..alerted(0, StopAction::Hold)
    };
    let id = made(&mut work, &NewDeployment { stop: vec![early], ..new(4) });
    (1..=2).for_each(|number| get(&mut work, &id, number));
    (1..=2).for_each(|number| alert(&mut work, number, Level::Critical));
    assert_eq!(known(&mut work, &id).held, None);
    get(&mut work, &id, 3);
    assert!(known(&mut work, &id).held.is_some(), "the alerts came before enough devices had it");
    let mut work = fleet(10, 1000);
    let part =
        StopRule { alerted_devices: None, alerted_percent: Some(50.0), ..alerted(0, StopAction::Hold) };
    let id = made(&mut work, &NewDeployment { stop: vec![part], ..new(10) });
    (1..=4).for_each(|number| get(&mut work, &id, number));
    (1..=2).for_each(|number| alert(&mut work, number, Level::Critical));
    assert_eq!(known(&mut work, &id).held, None);
    alert(&mut work, 3, Level::Critical);
    assert_eq!(
        known(&mut work, &id).held.as_deref(),
        Some("3 of 4 devices have raised a critical alert after the update, more than 50 percent")
    );
}

#[test]
fn what_a_person_let_go_on_is_stopped_by_what_is_new_only() {
    let mut work = fleet(8, 1);
    let stop =
        vec![StopRule { failed_devices: Some(0), ..rule(StopAction::Hold) }, alerted(0, StopAction::Hold)];
    let id = made(&mut work, &NewDeployment { stop, ..new(8) });
    (1..=3).for_each(|number| assert!(ask(&mut work, &id, number, &[]).is_some()));
    (1..=2).for_each(|number| report(&mut work, &id, number, Status::Success).unwrap());
    let held = |work: &mut Work| known(work, &id).held.unwrap_or_default();
    let go_on = |work: &mut Work| run(work, |work| hold(work, &id, None, None)).unwrap();
    alert(&mut work, 1, Level::Critical);
    assert!(held(&mut work).contains("alert"));
    go_on(&mut work);
    report(&mut work, &id, 3, Status::Failure).unwrap();
    assert_eq!(held(&mut work), "1 device has failed, more than 0");
    go_on(&mut work);
    alert(&mut work, 1, Level::Critical);
    assert_eq!(held(&mut work), "", "that device has been counted");
    alert(&mut work, 2, Level::Critical);
    assert!(held(&mut work).contains("2 devices have raised"));
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let hold = || StopRule { failed_devices: None, ..rule(StopAction::Hold) };
    let refused = |rule: StopRule| check(&NewDeployment { stop: vec![rule], ..new(1) }).err();
    for good in [
        StopRule { failed_devices: Some(999), within_seconds: Some(1), ..hold() },
        StopRule { failed_percent: Some(0.0), after_devices: Some(1), ..hold() },
        StopRule { alerted_devices: Some(5000), within_seconds: Some(1), ..hold() },
        StopRule { alerted_percent: Some(99.9), within_seconds: Some(1), after_devices: Some(1), ..hold() },
    ] {
        assert_eq!(refused(good.clone()), None, "{good:?}");
    }
    for wrong in [
        hold(),
        StopRule { failed_devices: Some(1), failed_percent: Some(1.0), ..hold() },
        StopRule { failed_devices: Some(1), alerted_devices: Some(1), ..hold() },
        StopRule { alerted_devices: Some(1), alerted_percent: Some(1.0), ..hold() },
        StopRule { failed_percent: Some(100.0), ..hold() },
        StopRule { alerted_percent: Some(-1.0), ..hold() },
        StopRule { alerted_percent: Some(f64::NAN), ..hold() },
        StopRule { failed_percent: Some(1.0), within_seconds: Some(1), ..hold() },
        StopRule { failed_devices: Some(1000), within_seconds: Some(1), ..hold() },
        StopRule { failed_devices: Some(1), after_devices: Some(1), ..hold() },
        StopRule { alerted_devices: Some(1), after_devices: Some(1), ..hold() },
        StopRule { alerted_devices: Some(1), within_seconds: Some(0), ..hold() },
    ] {
        assert!(matches!(refused(wrong.clone()), Some(CreateError::Stop(_))), "{wrong:?}");
    }
    let many = vec![alerted(1, StopAction::Hold); 21];
    assert!(matches!(check(&NewDeployment { stop: many, ..new(1) }), Err(CreateError::Stop(_))));
}

#[test]
fn a_deployment_for_a_filter_ends_with_as_many_devices_as_it_may_have() {
    let mut work = fleet(3, 1);
    let id = made(
        &mut work,
        &NewDeployment { filter: Some(json!({ "id": "f" })), max_devices: Some(2), ..new(0) },
    );
    for number in 1..=2 {
        assert!(ask(&mut work, &id, number, &[]).is_some());
    }
    assert_eq!(ask(&mut work, &id, 3, &[]), None);
    report(&mut work, &id, 1, Status::Success).unwrap();
    assert_eq!(known(&mut work, &id).finished, None);
    report(&mut work, &id, 2, Status::Success).unwrap();
    assert!(known(&mut work, &id).finished.is_some());
}

#[test]
fn the_devices_of_a_filter_begin_in_phases_whoever_they_will_be() {
    let later_on = Some(Timestamp(2 * HOUR));
    for (phases, max_devices, at_once, in_the_second) in [
        (vec![(None, PhaseSize::Devices(2)), (later_on, PhaseSize::Rest)], None, 2, 20),
        (vec![(None, PhaseSize::Devices(2)), (later_on, PhaseSize::Rest)], Some(5), 2, 5),
        (vec![(None, PhaseSize::Devices(7)), (later_on, PhaseSize::Rest)], Some(5), 5, 5),
        (vec![(None, PhaseSize::Rest)], None, 20, 20),
        (vec![(Some(Timestamp(HOUR)), PhaseSize::Rest)], Some(3), 3, 3),
        (vec![(later_on, PhaseSize::Rest)], None, 0, 20),
    ] {
        let mut work = fleet(20, HOUR);
        let wanted = NewDeployment {
            filter: Some(json!({ "id": "f" })),
            max_devices,
            phases: phases.clone(),
            ..new(0)
        };
        let id = made(&mut work, &wanted);
        assert_eq!(offered(&mut work, &id), at_once, "{phases:?} {max_devices:?}");
        let mut second = later(&[&work], 2 * HOUR);
        assert_eq!(offered(&mut second, &id), in_the_second, "{phases:?} {max_devices:?}");
        assert_eq!(known(&mut second, &id).device_count, in_the_second as u64);
    }
}

fn load_offset(work: &mut Work, number: u32, offset: &str) {
    let attribute = Attribute {
        name: "utc_offset".to_owned(),
        value: json!(offset),
        description: None,
        timestamp: Timestamp(1),
    };
    let attributes = [("utc_offset".to_owned(), attribute)].into_iter().collect();
    let inventory = Inventory { attributes, updated: None };
    work.load(Loaded::Inventory(number.to_string(), Some(inventory)));
}

#[test]
fn a_device_begins_in_a_window_of_its_own_clock() {
    // A Thursday, 21:30 in UTC.
    let now = 21 * HOUR + HOUR / 2;
    let windows = |days: &[Day], default_offset: Option<&str>| Windows {
        attribute: "utc_offset".to_owned(),
        default_offset: default_offset.map(str::to_owned),
        open: vec![Window { days: days.to_vec(), from: "22:00".to_owned(), to: "04:00".to_owned() }],
    };
    use crate::model::Day;
    for (days, default_offset, reported, begins) in [
        (&[][..], None, Some("+01:00"), true),
        (&[], None, Some("Z"), false),
        (&[], None, Some("+0600"), true),
        (&[], None, Some("+07:00"), false),
        (&[Day::Thu], None, Some("+06:00"), true),
        (&[Day::Fri], None, Some("+06:00"), false),
        (&[], None, None, false),
        (&[], Some("+02:00"), None, true),
        (&[], Some("+02:00"), Some("-02:00"), false),
    ] {
        let mut work = fleet(1, now);
        if let Some(reported) = reported {
            load_offset(&mut work, 1, reported);
        }
        let id = made(&mut work, &NewDeployment { windows: Some(windows(days, default_offset)), ..new(1) });
        let offered = ask(&mut work, &id, 1, &[]).is_some();
        assert_eq!(offered, begins, "{days:?} {default_offset:?} {reported:?}");
        assert_eq!(known(&mut work, &id).records(), u64::from(begins));
    }
}

#[test]
fn over_the_budget_nothing_is_offered_and_nothing_changes() {
    let mut work = fleet(4, HOUR);
    let budget = Some(Budget { bytes_per_hour: Some(220), in_flight: None });
    let id = made(&mut work, &NewDeployment { budget, ..new(4) });
    assert!(ask(&mut work, &id, 1, &[]).is_some());
    assert!(ask(&mut work, &id, 2, &[]).is_some());
    let before = known(&mut work, &id);
    assert_eq!(ask(&mut work, &id, 3, &[]), None);
    assert_eq!(known(&mut work, &id), before);
    assert!(ask(&mut work, &id, 1, &[]).is_some(), "who has an offer goes on");
    assert!(ask(&mut work, &id, 4, &[("sum", "old")]).is_some(), "a small one fits");
    let mut work = later(&[&work], 2 * HOUR);
    assert!(ask(&mut work, &id, 3, &[]).is_some());
}

#[test]
fn only_so_many_devices_load_at_once() {
    let mut work = fleet(3, 1);
    let budget = Some(Budget { bytes_per_hour: None, in_flight: Some(1) });
    let id = made(&mut work, &NewDeployment { budget, ..new(3) });
    assert!(ask(&mut work, &id, 1, &[]).is_some());
    assert_eq!(ask(&mut work, &id, 2, &[]), None);
    report(&mut work, &id, 1, Status::Downloading).unwrap();
    assert_eq!(ask(&mut work, &id, 2, &[]), None);
    report(&mut work, &id, 1, Status::Installing).unwrap();
    assert!(ask(&mut work, &id, 2, &[]).is_some());
}

#[test]
fn one_device_is_taken_out_and_the_others_go_on() {
    let mut work = fleet(3, 1);
    let id = made(&mut work, &new(2));
    run(&mut work, |work| abort_on(work, &id, "1")).unwrap();
    assert_eq!(run(&mut work, |work| abort_on(work, &id, "1")), Err(ReportError::Finished));
    assert_eq!(run(&mut work, |work| abort_on(work, &id, "3")), Err(ReportError::NotFound));
    assert_eq!(ask(&mut work, &id, 1, &[]), None);
    assert!(ask(&mut work, &id, 2, &[]).is_some());
    report(&mut work, &id, 2, Status::Success).unwrap();
    assert!(known(&mut work, &id).finished.is_some());
}

#[test]
fn the_first_phase_is_for_those_who_were_chosen() {
    let canaries = |devices: &[u32]| {
        let wanted = WantedCanaries { count: 2, spread_by: vec!["device_type".to_owned()] };
        Some(Canaries { wanted, devices: devices.to_vec() })
    };
    let phases = vec![
        (None, PhaseSize::Rest),
        (Some(Timestamp(HOUR)), PhaseSize::Percent(50.0)),
        (Some(Timestamp(2 * HOUR)), PhaseSize::Rest),
    ];
    let mut work = fleet(6, 1);
    let new = NewDeployment { phases, canaries: canaries(&[2, 5]), ..new(6) };
    let id = made(&mut work, &new);
    let begun = |work: &mut Work, numbers: &[u32]| -> Vec<bool> {
        numbers.iter().map(|number| ask(work, &id, *number, &[]).is_some()).collect()
    };
    assert_eq!(begun(&mut work, &[1, 2, 3]), [false, true, false]);
    // One that comes late has its place still, and takes none of the others'.
    let mut second = later(&[&work], HOUR);
    assert_eq!(begun(&mut second, &[1, 3, 4, 6, 5]), [true, true, true, false, true]);
    let counts: Vec<u64> = known(&mut second, &id).phases.iter().map(|phase| phase.begun).collect();
    assert_eq!(counts, [2, 3, 0]);
    let mut third = later(&[&work, &second], 2 * HOUR);
    assert_eq!(begun(&mut third, &[6]), [true]);
}

#[test]
fn those_who_begin_first_need_a_phase_of_their_own() {
    let wanted = WantedCanaries { count: 1, spread_by: vec!["device_type".to_owned()] };
    let canaries = Some(Canaries { wanted, devices: vec![1] });
    let later = (Some(Timestamp(HOUR)), PhaseSize::Rest);
    for (phases, filter) in [
        (vec![], None),
        (vec![(None, PhaseSize::Rest)], None),
        (vec![(None, PhaseSize::Devices(1)), later], None),
        (vec![(None, PhaseSize::Rest), later], Some(json!({}))),
    ] {
        let new = NewDeployment { phases, filter, canaries: canaries.clone(), ..new(2) };
        let refused = check(&new);
        assert!(matches!(refused, Err(CreateError::Canaries(_))), "{refused:?}");
    }
    let phases = vec![(None, PhaseSize::Rest), later];
    assert!(check(&NewDeployment { phases, canaries, ..new(2) }).is_ok());
}

#[test]
fn all_deployments_share_the_budget_of_the_fleet() {
    let mut work = fleet(6, HOUR);
    let set = |work: &mut Work, bytes_per_hour, in_flight| {
        let budget = Some(Budget { bytes_per_hour, in_flight });
        run(work, |work| set_fleet_budget(work, budget)).unwrap();
    };
    let (one, two) = (made(&mut work, &new(6)), made(&mut work, &new(6)));
    let both = [one.clone(), two.clone()];
    let asks =
        |work: &mut Work, id: &str, number: u32| ask_in_fleet(work, id, number, &[], Some(&both)).is_some();
    set(&mut work, None, Some(2));
    assert!(asks(&mut work, &one, 1) && asks(&mut work, &two, 2));
    let before = (known(&mut work, &one), known(&mut work, &two));
    assert!(!asks(&mut work, &one, 3) && !asks(&mut work, &two, 3));
    assert_eq!((known(&mut work, &one), known(&mut work, &two)), before, "who waits changes nothing");
    assert!(asks(&mut work, &one, 1), "who has an offer goes on");
    report(&mut work, &one, 1, Status::Installing).unwrap();
    assert!(asks(&mut work, &two, 3));
    // Bytes that were given before there was a budget of bytes do not count.
    set(&mut work, Some(220), None);
    assert!(asks(&mut work, &one, 4) && asks(&mut work, &two, 5));
    assert!(!asks(&mut work, &one, 6) && !asks(&mut work, &two, 6));
    // Another one does not begin the hour anew.
    set(&mut work, Some(230), None);
    assert!(!asks(&mut work, &one, 6));
    let mut work = later(&[&work], 2 * HOUR);
    set(&mut work, Some(50), None);
    assert!(asks(&mut work, &one, 6), "what is larger than the budget goes alone");
    run(&mut work, |work| set_fleet_budget(work, None)).unwrap();
    assert_eq!(run(&mut work, |work| work.document::<serde_json::Value>(Kind::Budget, FLEET)), Ok(None));
}

#[test]
fn what_is_deployed_is_not_deleted_in_the_same_moment_and_what_is_deleted_is_not_deployed() {
    use crate::domain::artifacts::{ArtifactError, add_made, delete};
    let artifact = |id: &str, name: &str| Artifact::plain(id, name, &["x"]);
    let any = |_: &Key| true;
    let mut work = Work::new(Timestamp(1));
    for id in ["a", "b"] {
        testing::run(&mut work, any, |work| add_made(work, &artifact(id, id), &[], &[])).unwrap();
    }
    // Nobody has told what is in memory of the deployment.
    let nobody = |_: &str| Vec::new();
    let of = |name: &str| NewDeployment {
        artifact_name: name.to_owned(),
        artifacts: vec![name.to_owned()],
        ..new(1)
    };
    let made = testing::run(&mut work, any, |work| create(work, of("a"))).unwrap();
    let refused = testing::run(&mut work, any, |work| delete(work, "a", &nobody)).unwrap_err();
    assert!(matches!(refused, ArtifactError::InUse { deployments } if deployments == [made]));
    testing::run(&mut work, any, |work| delete(work, "b", &nobody)).unwrap();
    let refused = testing::run(&mut work, any, |work| create(work, of("b"))).unwrap_err();
    assert!(matches!(refused, CreateError::NoArtifact));
    // Nor is what was made of it kept.
    let delta = artifact("delta", "a");
    let refused =
        testing::run(&mut work, any, |work| add_made(work, &delta, &[], &["a".to_owned(), "b".to_owned()]));
    assert!(matches!(refused, Err(ArtifactError::Withdrawn)));
}

#[test]
fn a_place_that_nobody_uses_is_given_to_another_device() {
    const MINUTE: u64 = 60_000;
    let mut work = fleet(3, HOUR);
    let budget = Some(Budget { bytes_per_hour: None, in_flight: Some(1) });
    let id = made(&mut work, &NewDeployment { budget, ..new(3) });
    let release = |work: &mut Work, number: u32| run(work, |work| release(work, &id, &number.to_string()));
    let loading = |work: &mut Work| {
        let known = known(work, &id);
        (known.loading(), known.lapsed)
    };
    assert!(ask(&mut work, &id, 1, &[]).is_some());
    let mut soon = later(&[&work], HOUR + 29 * MINUTE);
    assert!(ask(&mut soon, &id, 1, &[]).is_some(), "who asks again has the same place, and no new one");
    assert_eq!(release(&mut soon, 1), Ok(false));
    let mut late = later(&[&work, &soon], HOUR + 30 * MINUTE);
    assert_eq!(
        (release(&mut late, 1), release(&mut late, 1), release(&mut late, 2)),
        (Ok(true), Ok(false), Ok(false))
    );
    assert_eq!(loading(&mut late), (0, 1));
    assert!(ask(&mut late, &id, 2, &[]).is_some());
    assert_eq!(ask(&mut late, &id, 1, &[]), None, "it waits with the others");
    assert_eq!(loading(&mut late), (1, 1));
    report(&mut late, &id, 2, Status::Installing).unwrap();
    assert!(ask(&mut late, &id, 1, &[]).is_some());
    assert_eq!(loading(&mut late), (1, 0));
    // Its time begins anew.
    let mut next = later(&[&work, &soon, &late], HOUR + 59 * MINUTE);
    assert_eq!(release(&mut next, 1), Ok(false));
    let mut last = later(&[&work, &soon, &late, &next], HOUR + 60 * MINUTE);
    assert_eq!(release(&mut last, 1), Ok(true));
    // Who begins without asking again is counted, and has its place for as long as who was given one.
    report(&mut last, &id, 1, Status::Downloading).unwrap();
    assert_eq!(loading(&mut last), (1, 0));
    let mut loads = later(&[&work, &soon, &late, &next, &last], HOUR + 89 * MINUTE);
    assert_eq!(release(&mut loads, 1), Ok(false));
    assert_eq!(ask(&mut loads, &id, 3, &[]), None);
    let mut dead = later(&[&work, &soon, &late, &next, &last, &loads], HOUR + 90 * MINUTE);
    assert_eq!((release(&mut dead, 1), release(&mut dead, 1)), (Ok(true), Ok(false)));
    assert_eq!(loading(&mut dead), (0, 1));
    assert!(ask(&mut dead, &id, 3, &[]).is_some());
    assert_eq!(ask(&mut dead, &id, 1, &[]), None, "it waits with the others");
    // Its word, also one that it has said before, counts again.
    report(&mut dead, &id, 1, Status::Downloading).unwrap();
    assert_eq!(loading(&mut dead), (2, 0));
    assert_eq!(release(&mut dead, 1), Ok(false));
    report(&mut dead, &id, 1, Status::Installing).unwrap();
    assert_eq!(loading(&mut dead), (1, 0));
}

#[test]
fn who_fails_and_stays_away_loses_the_place_and_an_end_leaves_none() {
    let mut work = fleet(2, HOUR);
    let budget = Some(Budget { bytes_per_hour: None, in_flight: Some(1) });
    let id = made(&mut work, &NewDeployment { budget, retries: 3, ..new(2) });
    assert!(ask(&mut work, &id, 1, &[]).is_some());
    let mut failed = later(&[&work], 2 * HOUR);
    report(&mut failed, &id, 1, Status::Failure).unwrap();
    assert_eq!(run(&mut failed, |work| release(work, &id, "1")), Ok(false), "it has just been heard of");
    let mut away = later(&[&work, &failed], 3 * HOUR);
    assert_eq!(run(&mut away, |work| release(work, &id, "1")), Ok(true));
    assert!(ask(&mut away, &id, 2, &[]).is_some());
    run(&mut away, |work| abort_on(work, &id, "1")).unwrap();
    assert_eq!((known(&mut away, &id).loading(), known(&mut away, &id).lapsed), (1, 0));
    run(&mut away, |work| abort(work, &id, None)).unwrap();
    assert_eq!(run(&mut away, |work| release(work, &id, "2")), Ok(false));
    assert_eq!((known(&mut away, &id).loading(), known(&mut away, &id).lapsed), (0, 0));
}

/// Decommissions a device when nobody knows of a deployment yet.
fn decommission(work: &mut Work, number: u32) {
    let id = number.to_string();
    run(work, |work| crate::domain::admission::decommission(work, &id, |_| Vec::new())).unwrap();
}

#[test]
fn a_device_that_goes_while_a_deployment_is_made_keeps_it_from_nothing() {
    // The deployment is first, and nobody knows of it yet.
    let mut work = fleet(2, 1);
    let id = made(&mut work, &new(2));
    decommission(&mut work, 1);
    let record = run(&mut work, |work| work.record(&id, "1")).unwrap().unwrap();
    assert_eq!(record.status, Status::Decommissioned);
    assert!(ask(&mut work, &id, 2, &[]).is_some());
    report(&mut work, &id, 2, Status::Success).unwrap();
    assert!(known(&mut work, &id).finished.is_some());
    // One that does not list it has nothing to do with it.
    let mut work = fleet(3, 1);
    let id = made(&mut work, &new(2));
    decommission(&mut work, 3);
    assert_eq!(run(&mut work, |work| work.record(&id, "3")), Ok(None));
    // The device is first: it was listed before.
    let mut work = fleet(3, 1);
    decommission(&mut work, 2);
    let id = made(&mut work, &new(3));
    assert_eq!(known(&mut work, &id).device_count, 2);
    let members = run(&mut work, |work| work.members(&id)).unwrap();
    assert_eq!(members.iter().collect::<Vec<_>>(), [1, 3]);
    let only = NewDeployment { members: [2].into_iter().collect(), ..new(0) };
    assert_eq!(run(&mut work, |work| create(work, only.clone())), Err(CreateError::NoDevices));
    // What a device has begun with ends as well, also a configuration.
    let mut work = fleet(1, 1);
    let id = made(&mut work, &new(1));
    assert!(ask(&mut work, &id, 1, &[]).is_some());
    let mut work = later(&[&work], HOUR);
    decommission(&mut work, 1);
    assert!(known(&mut work, &id).finished.is_some());
}

#[test]
fn more_devices_that_go_than_are_remembered_let_nothing_be_made_that_lists_them() {
    let mut work = Work::new(Timestamp(1));
    for number in 1..=1002 {
        work.load(Loaded::Device(number.to_string(), Some(device(number))));
        decommission(&mut work, number);
    }
    let document = run(&mut work, |work| work.document(Kind::Order, RECENT)).unwrap();
    let before = gone_before(document);
    assert_eq!(before, 1002);
    let refused = run(&mut work, |work| create(work, NewDeployment { gone_before: 1, ..new(2000) }));
    assert_eq!(refused, Err(CreateError::TooManyGone));
    for seen in [2, before] {
        let made = run(&mut work, |work| create(work, NewDeployment { gone_before: seen, ..new(2000) }));
        assert!(made.is_ok(), "{made:?}");
    }
}

/// Gives a deployment another sequence number.
fn renumber(work: &mut Work, id: &str, sequence: u64) {
    let renumbered = Deployment { sequence, ..known(work, id) };
    run(work, |work| work.put_deployment(renumbered.clone())).unwrap();
}

/// Ends a deployment on a device in some way.
fn end_as(work: &mut Work, id: &str, device: &str, status: Status) {
    let deployment = known(work, id);
    run(work, |work| {
        work.record(id, device)?;
        put(work, new_record(&deployment, device, status, work.now()).unwrap())
    })
    .unwrap();
}

#[test]
fn only_newer_software_takes_a_device_out_of_a_rollout_that_waits() {
    for (status, is_configuration, is_passed) in [
        (Status::Success, false, true),
        (Status::Failure, false, true),
        (Status::AlreadyInstalled, false, true),
        (Status::Noartifact, false, false),
        (Status::Aborted, false, false),
        (Status::Success, true, false),
        (Status::Failure, true, false),
    ] {
        let mut work = fleet(2, HOUR);
        let older = made(&mut work, &new(2));
        let configuration = is_configuration.then(BTreeMap::new);
        let newer = made(&mut work, &NewDeployment { configuration, ..new(2) });
        renumber(&mut work, &newer, 2);
        end_as(&mut work, &newer, "1", status);
        let is_offered = ask(&mut work, &older, 1, &[]).is_some();
        assert_eq!(is_offered, !is_passed, "{status:?} of a configuration: {is_configuration}");
    }
}

#[test]
fn a_configuration_that_is_ordered_ends_the_one_before_it() {
    use crate::domain::configuration::deploy;
    let mut work = fleet(1, HOUR);
    let (first, before) = run(&mut work, |work| deploy(work, "1", "a", 0)).unwrap();
    assert_eq!(before, None);
    let (second, before) = run(&mut work, |work| deploy(work, "1", "b", 0)).unwrap();
    assert_eq!(before.as_ref(), Some(&first));
    assert!(known(&mut work, &first).finished.is_some(), "it is never offered again");
    let record = run(&mut work, |work| work.record(&first, "1")).unwrap().unwrap();
    assert_eq!((record.status, known(&mut work, &second).finished), (Status::Aborted, None));
}

#[test]
fn who_waits_for_a_place_and_is_offered_a_newer_deployment_ends_the_older_one() {
    for is_installed in [false, true] {
        let mut work = fleet(2, HOUR);
        let budget = Some(Budget { bytes_per_hour: None, in_flight: Some(1) });
        let older = made(&mut work, &NewDeployment { budget, ..new(2) });
        let artifact_name = if is_installed { "release-1" } else { "release-2" }.to_owned();
        let newer = made(&mut work, &NewDeployment { artifact_name, ..new(1) });
        renumber(&mut work, &newer, 2);
        assert!(ask(&mut work, &older, 1, &[]).is_some());
        let mut late = later(&[&work], 2 * HOUR);
        assert_eq!(run(&mut late, |work| release(work, &older, "1")), Ok(true));
        assert!(ask(&mut late, &older, 2, &[]).is_some());
        let status = |work: &mut Work| run(work, |work| work.record(&older, "1")).unwrap().unwrap().status;
        assert_eq!((ask(&mut late, &older, 1, &[]), status(&mut late)), (None, Status::Pending));
        // It asks for both, and waits in the first.
        let request = Request {
            artifact_name: "release-1".to_owned(),
            device_type: "testdev".to_owned(),
            provides: BTreeMap::new(),
            complete: true,
        };
        let candidates = [&older, &newer]
            .map(|id| Candidate { deployment: id.clone(), artifacts: vec![artifact("full", 100, &[])] });
        let next = run(&mut late, |work| next(work, &claims(1), &candidates, &request, None)).unwrap();
        assert_eq!(matches!(next, Next::Offer { .. }), !is_installed);
        assert_eq!(status(&mut late), Status::Aborted);
        let device = run(&mut late, |work| work.device("1")).unwrap().unwrap();
        assert_eq!(device.active, (!is_installed).then(|| newer.clone()));
        report(&mut late, &older, 2, Status::Success).unwrap();
        assert!(known(&mut late, &older).finished.is_some(), "nobody is left in it");
    }
}
