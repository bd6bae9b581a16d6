//! `Retry-After`: how long a server wants to be left alone. It comes from outside and is bounded.

use std::time::Duration;

/// Shortest wait: less is no wait at all.
const LEAST: Duration = Duration::from_secs(1);
/// Longest wait: a server, or somebody in between, must not silence a device for longer.
const MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// 2020-01-01: a clock before that has not been set, and no date can be compared with it.
const CLOCK_IS_SET: Duration = Duration::from_secs(1_577_836_800);

/// The wait that `text` asks for (RFC 9110, 10.2.3): decimal seconds or a date. `None` when it says nothing usable.
pub(super) fn parse(text: &str, wall: Duration) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Too large for a number is just very long.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = imf_fixdate(text)?;
        if wall < CLOCK_IS_SET {
            return None;
        }
        Duration::from_secs(date).saturating_sub(wall)
    };
    Some(wait.clamp(LEAST, MOST))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`.
fn imf_fixdate(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    if text.len() != 29 || !text.is_ascii() || !text.ends_with(" GMT") || text.get(3..5) != Some(", ") {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let month = MONTHS.find(text.get(8..11)?).filter(|at| at % 3 == 0)? as u64 / 3 + 1;
    let (day, year) = (number(5, 7)?, number(12, 16)?);
    let (hour, minute, second) = (number(17, 19)?, number(20, 22)?, number(23, 25)?);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // 1970-01-01 is 719,468 days after 0000-03-01.
    Some((days - 719_468) * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, wall: u64, expected: Option<u64>) {
        let found = parse(text, Duration::from_secs(wall));
        assert_eq!(found, expected.map(Duration::from_secs), "{text}");
    }

    #[test]
    fn seconds_are_bounded() {
        check("120", 0, Some(120));
        check(" 120 ", 0, Some(120));
        check("0", 0, Some(1));
        check("86401", 0, Some(86_400));
        check("99999999999999999999999999", 0, Some(86_400));
    }

    #[test]
    fn a_date_is_a_wait_from_now_if_the_clock_is_set() {
        let date = "Sun, 22 Nov 2026 19:04:36 GMT";
        check(date, 1_795_374_276 - 100, Some(100));
        check(date, 1_795_374_276 + 100, Some(1));
        check(date, 1_600_000_000, Some(86_400));
        check(date, 5, None);
    }

    #[test]
    fn garbage_says_nothing() {
        for text in [
            "",
            " ",
            "-1",
            "+1",
            "1.5",
            "1e3",
            "soon",
            "0x10",
            "Sun, 22 Nov 2026",
            "ääääääääääääääääääääääääääää",
        ] {
            check(text, 1_700_000_000, None);
        }
        check("Sun, 99 Nov 2026 19:04:36 GMT", 1_700_000_000, None);
        check("Sun, 22 ovD 2026 19:04:36 GMT", 1_700_000_000, None);
        check("Sun, 22 Nov 0000 19:04:36 GMT", 1_700_000_000, None);
        check("Sun, 22 Nov 2026 +9:04:36 GMT", 1_700_000_000, None);
    }

    #[test]
    fn dates_are_counted_right() {
        assert_eq!(imf_fixdate("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(imf_fixdate("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(imf_fixdate("Tue, 29 Feb 2000 00:00:00 GMT"), Some(951_782_400));
    }
}
