//! The poll schedule on a virtual clock.

// A broken assumption of a test stops it, also in what several tests share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use client_core::clock::Clock;
use client_core::schedule::{Due, Schedule};
use testkit::choice::{Generator, seed};
use testkit::clock::VirtualClock;

const MINUTE: Duration = Duration::from_secs(60);

/// The times from the start at which each is done within `time`, if everything succeeds.
fn run(seed: u64, update: Duration, inventory: Duration, time: Duration) -> Vec<(Due, Duration)> {
    let clock = VirtualClock::new(seed);
    let begun = clock.now();
    let mut schedule = Schedule::new(&clock, update, inventory);
    let mut done = Vec::new();
    while clock.now() - begun < time {
        clock.advance(schedule.next_in(clock.now()));
        let due = schedule.due(clock.now()).expect("what was waited for is due");
        done.push((due, clock.now() - begun));
        schedule.after_success(due, &clock);
    }
    done
}

#[test]
fn the_first_round_comes_within_a_minute_with_the_inventory_first_and_is_spread() {
    let mut seconds = Vec::new();
    let mut seeds = Generator::new(seed());
    for _ in 0..200 {
        let done = run(seeds.next_word(), 30 * MINUTE, 480 * MINUTE, MINUTE);
        assert_eq!((done[0].0, done[1].0), (Due::Inventory, Due::Update));
        assert!(done[0].1 == done[1].1 && done[0].1 <= MINUTE);
        seconds.push(done[0].1.as_secs());
    }
    seconds.sort_unstable();
    seconds.dedup();
    assert!(seconds.len() > 40, "{} different seconds", seconds.len());
}

#[test]
fn a_short_interval_is_not_preceded_by_a_long_wait() {
    let mut seeds = Generator::new(seed());
    for _ in 0..50 {
        let done = run(seeds.next_word(), Duration::from_secs(5), 480 * MINUTE, Duration::from_secs(5));
        assert!(done[0].1 <= Duration::from_secs(5));
    }
}

#[test]
fn every_interval_is_a_tenth_longer_or_shorter_at_most_and_they_differ() {
    let done = run(7, 30 * MINUTE, 480 * MINUTE, 1440 * 60 * MINUTE);
    for (due, interval) in [(Due::Update, 30 * MINUTE), (Due::Inventory, 480 * MINUTE)] {
        let times: Vec<Duration> = done.iter().filter(|(d, _)| *d == due).map(|(_, at)| *at).collect();
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap >= interval * 9 / 10 && *gap <= interval * 11 / 10));
        assert!(gaps.iter().any(|gap| *gap < interval) && gaps.iter().any(|gap| *gap > interval));
        let mean = gaps.iter().sum::<Duration>() / u32::try_from(gaps.len()).unwrap();
        assert!(mean > interval * 98 / 100 && mean < interval * 102 / 100, "{mean:?}");
    }
}

#[test]
fn a_failure_waits_as_long_as_asked_and_a_little_longer_and_only_for_itself() {
    let clock = VirtualClock::new(3);
    let mut schedule = Schedule::new(&clock, 30 * MINUTE, 480 * MINUTE);
    clock.advance(MINUTE);
    schedule.after_success(Due::Inventory, &clock);
    schedule.after_failure(Due::Update, &clock, 2 * MINUTE);
    let next = schedule.next_in(clock.now());
    assert!(next >= 2 * MINUTE && next <= 132 * Duration::from_secs(1), "{next:?}");
    assert_eq!(schedule.due(clock.now()), None);
}

#[test]
fn what_is_asked_for_is_due_at_once() {
    let clock = VirtualClock::new(3);
    let mut schedule = Schedule::new(&clock, 30 * MINUTE, 480 * MINUTE);
    clock.advance(MINUTE);
    schedule.after_success(Due::Inventory, &clock);
    schedule.after_success(Due::Update, &clock);
    assert_eq!(schedule.due(clock.now()), None);
    schedule.poll_now();
    assert_eq!(
        (schedule.due(clock.now()), schedule.next_in(clock.now())),
        (Some(Due::Update), Duration::ZERO)
    );
    schedule.inventory_now();
    assert_eq!(schedule.due(clock.now()), Some(Due::Inventory));
}

#[test]
fn absurd_intervals_neither_overflow_nor_spin() {
    for interval in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX] {
        let clock = VirtualClock::new(9);
        let mut schedule = Schedule::new(&clock, interval, interval);
        assert!(schedule.next_in(clock.now()) <= MINUTE);
        schedule.after_success(Due::Update, &clock);
        schedule.after_success(Due::Inventory, &clock);
        assert!(schedule.next_in(clock.now()) >= Duration::from_millis(900));
        schedule.after_failure(Due::Update, &clock, interval);
        schedule.after_failure(Due::Inventory, &clock, interval);
        assert!(schedule.next_in(clock.now()) >= Duration::from_secs(1));
    }
}

#[test]
fn a_step_of_the_wall_clock_changes_nothing() {
    let clock = VirtualClock::new(3);
    let schedule = Schedule::new(&clock, 30 * MINUTE, 480 * MINUTE);
    let next = schedule.next_in(clock.now());
    clock.set_wall(Duration::ZERO);
    assert_eq!(schedule.next_in(clock.now()), next);
}
