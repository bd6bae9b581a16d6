//! Maintenance windows: times of the week, in whatever time zone the caller counts in, and what waits for them.

use std::time::Duration;

use super::{Answer, Gate};
use crate::clock;

/// How often a closed window is looked at again at least: wall time may step.
const AGAIN: Duration = Duration::from_secs(600);
const MINUTES_OF_DAY: u32 = 24 * 60;
const MINUTES_OF_WEEK: u32 = 7 * MINUTES_OF_DAY;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A time that comes back on some days of the week. Where it ends before it begins it goes on over midnight, and
/// belongs to the day on which it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Monday first.
    days: [bool; 7],
    from_minute: u32,
    length_minutes: u32,
}

/// A moment of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeekTime {
    /// 0 is Monday.
    pub weekday: u32,
    /// Since midnight.
    pub second: u32,
}

impl WeekTime {
    /// That of `wall` since 1970, in UTC.
    pub fn utc(wall: Duration) -> WeekTime {
        let days = wall.as_secs() / 86_400;
        // 1970 began on a Thursday.
        let weekday = u32::try_from((days + 3) % 7).unwrap_or(0);
        WeekTime { weekday, second: u32::try_from(wall.as_secs() % 86_400).unwrap_or(0) }
    }
}

/// When updates may disturb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintenanceWindow {
    /// The times. Any one that is open will do.
    pub times: Vec<Window>,
    /// What waits for them.
    pub before: Vec<Gate>,
    /// The times are in UTC, not in the time zone of the device.
    pub utc: bool,
}

impl MaintenanceWindow {
    /// Whether a deployment may pass `gate` at `wall` since 1970, which is `week` in the time zone of the window. A
    /// clock that was never set tells no time at which the window were open.
    pub(super) fn ask(&self, gate: Gate, wall: Duration, week: WeekTime) -> Answer {
        if !self.before.contains(&gate) {
            return Answer::PASS;
        }
        if !clock::was_set(wall) {
            let reason = "maintenance window, and the clock was not set yet".to_owned();
            return Answer::Closed { reason, ask_again: AGAIN };
        }
        match self.times.iter().map(|times| times.opens_in(week)).min() {
            Some(opens_in) if !opens_in.is_zero() => Answer::Closed {
                reason: "outside of the maintenance window".to_owned(),
                ask_again: opens_in.min(AGAIN),
            },
            Some(_) | None => Answer::PASS,
        }
    }
}

impl Window {
    /// From and to are `HH:MM`, `to` may be `24:00`; days are `mon` to `sun` in any letter case, none for every day.
    /// `None` where that is not what they are, or the window would be empty.
    pub fn parse(days: &[&str], from: &str, to: &str) -> Option<Window> {
        let mut chosen = [days.is_empty(); 7];
        for day in days {
            let at = DAYS.iter().position(|known| known.eq_ignore_ascii_case(day))?;
            chosen[at] = true;
        }
        let (from_minute, to_minute) = (minute_of_day(from)?, minute_of_day(to)?);
        if from_minute == MINUTES_OF_DAY {
            return None;
        }
        let length_minutes = (to_minute + MINUTES_OF_DAY - from_minute) % MINUTES_OF_DAY;
        let length_minutes = match (length_minutes, to_minute) {
            // From 00:00 to 24:00. From 08:00 to 08:00 may mean a day or nothing.
            (0, MINUTES_OF_DAY) => MINUTES_OF_DAY,
            (0, _) => return None,
            (length, _) => length,
        };
        Some(Window { days: chosen, from_minute, length_minutes })
    }

    /// How long until the window opens; zero while it is open.
    pub(crate) fn opens_in(&self, now: WeekTime) -> Duration {
        let second = now.second.min(MINUTES_OF_DAY * 60 - 1);
        let now_minute = (now.weekday % 7) * MINUTES_OF_DAY + second / 60;
        let mut soonest = MINUTES_OF_WEEK;
        for (day, _) in (0..).zip(self.days).filter(|(_, chosen)| *chosen) {
            let opens: u32 = day * MINUTES_OF_DAY + self.from_minute;
            let since = (now_minute + MINUTES_OF_WEEK - opens) % MINUTES_OF_WEEK;
            if since < self.length_minutes {
                return Duration::ZERO;
            }
            soonest = soonest.min(MINUTES_OF_WEEK - since);
        }
        // `soonest` counts from the beginning of this minute.
        Duration::from_secs(u64::from(soonest * 60 - second % 60))
    }
}

fn minute_of_day(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| match text.len() {
        2 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u32>().ok(),
        _ => None,
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    let total = hour * 60 + minute;
    (minute < 60 && total <= MINUTES_OF_DAY).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(weekday: u32, hour: u32, minute: u32, second: u32) -> WeekTime {
        WeekTime { weekday, second: hour * 3600 + minute * 60 + second }
    }

    fn opens(window: Window, now: WeekTime) -> u64 {
        window.opens_in(now).as_secs()
    }

    #[test]
    fn a_window_is_open_from_its_first_second_to_its_last() {
        let nights = Window::parse(&[], "01:00", "05:30").unwrap();
        assert_eq!(opens(nights, at(2, 0, 59, 59)), 1);
        assert_eq!(opens(nights, at(2, 1, 0, 0)), 0);
        assert_eq!(opens(nights, at(2, 5, 29, 59)), 0);
        assert_eq!(opens(nights, at(2, 5, 30, 0)), 19 * 3600 + 1800);
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_began() {
        let window = Window::parse(&["Sun"], "23:00", "02:00").unwrap();
        assert_eq!(opens(window, at(6, 23, 0, 0)), 0);
        assert_eq!(opens(window, at(0, 1, 59, 59)), 0);
        assert_eq!(opens(window, at(0, 2, 0, 0)), 6 * 86_400 + 21 * 3600);
        assert_eq!(opens(window, at(6, 1, 0, 0)), 22 * 3600);
    }

    #[test]
    fn a_whole_day_is_open_all_day_and_closed_on_others() {
        let window = Window::parse(&["sat"], "00:00", "24:00").unwrap();
        assert_eq!(opens(window, at(5, 23, 59, 59)), 0);
        assert_eq!(opens(window, at(6, 0, 0, 0)), 6 * 86_400);
    }

    #[test]
    fn what_waits_for_a_window_waits_until_it_opens_and_while_the_clock_was_never_set() {
        let times = vec![Window::parse(&["wed"], "02:00", "04:00").unwrap()];
        let window = MaintenanceWindow { times, before: vec![Gate::Install, Gate::Reboot], utc: true };
        // Wednesday, 2026-11-18 01:59:00 UTC, and what is said so many seconds later.
        let ask = |gate, later: u64| {
            let wall = Duration::from_secs(1_794_967_140 + later);
            window.ask(gate, wall, WeekTime::utc(wall))
        };
        let closed = |reason: &str, seconds| Answer::Closed {
            reason: reason.to_owned(),
            ask_again: Duration::from_secs(seconds),
        };
        let outside = "outside of the maintenance window";
        for (gate, later, expected) in [
            (Gate::Install, 0, closed(outside, 60)),
            (Gate::Reboot, 59, closed(outside, 1)),
            (Gate::Install, 60, Answer::PASS),
            (Gate::Install, 60 + 7199, Answer::PASS),
            (Gate::Install, 60 + 7200, closed(outside, 600)),
            (Gate::Download, 0, Answer::PASS),
            (Gate::Commit, 0, Answer::PASS),
        ] {
            assert_eq!(ask(gate, later), expected, "{gate} {later}");
        }
        let never_set = closed("maintenance window, and the clock was not set yet", 600);
        // The first Wednesday of 1970 at three in the night: inside, by a clock that knows nothing.
        let early = Duration::from_secs(6 * 86_400 + 3 * 3600);
        assert_eq!(window.times[0].opens_in(WeekTime::utc(early)), Duration::ZERO);
        assert_eq!(window.ask(Gate::Install, early, WeekTime::utc(early)), never_set);
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for (days, from, to) in [
            (&["moon"][..], "01:00", "02:00"),
            (&[], "1:00", "02:00"),
            (&[], "01:00", "01:00"),
            (&[], "24:00", "01:00"),
            (&[], "01:60", "02:00"),
            (&[], "01:00", "24:01"),
            (&[], "+1:00", "02:00"),
            (&[], "0100", "02:00"),
        ] {
            assert_eq!(Window::parse(days, from, to), None, "{days:?} {from} {to}");
        }
    }
}
