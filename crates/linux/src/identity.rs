//! What the identity program says this device is. It has to be right, or not there at all.

use std::path::Path;

use client_core::clock::Clock;
use client_core::server::Attribute;

use crate::key_values::{self, KeyValueError, KeyValues, RunLimits};

/// What `executable` says the device is, sorted by name.
///
/// # Errors
/// For anything that is not at least one attribute and nothing else, from a program that succeeded.
pub fn ask(executable: &Path, limits: RunLimits, clock: &dyn Clock) -> Result<Vec<Attribute>, KeyValueError> {
    let mut told = KeyValues::default();
    told.add(key_values::run(executable, limits, clock)?);
    if told.values.is_empty() {
        return Err(KeyValueError::NoData { path: executable.to_owned() });
    }
    Ok(told.attributes())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::clock::LinuxClock;
    use crate::key_values::tests::{Programs, shown};

    use super::*;

    fn identity_of(body: &str) -> Result<String, String> {
        let programs = Programs::new(&[("id", body)]);
        shown(ask(&programs.path("id"), RunLimits::default(), &LinuxClock::new()))
    }

    #[test]
    fn an_identity_is_every_pair_sorted_and_repeated_names_are_lists() {
        assert_eq!(identity_of("echo mac=aa:bb").unwrap(), "mac=aa:bb");
        let body = "echo b=2; echo; echo a=x=y; echo '  '; echo b=1; echo empty=";
        assert_eq!(identity_of(body).unwrap(), "a=x=y b=[\"2\", \"1\"] empty=");
    }

    #[test]
    fn an_identity_that_is_not_certain_is_none() {
        let check = |body: &str, expected: &str| {
            let error = identity_of(body).unwrap_err();
            assert!(error.contains(expected), "{body}: {error}");
        };
        check("echo mac=x; echo nonsense", "printed line 2: there is no = in it");
        check("echo =x", "printed line 1: there is nothing before");
        check("true", "printed nothing");
        check("echo", "printed nothing");
        check("echo mac=x; exit 3", "failed: exit status: 3");
        check("echo mac=x; kill -9 $$", "failed: killed by signal 9");
        check(r"printf 'mac=\377\n'", "not UTF-8");
        check(r"printf 'mac=a\000b\n'", "NUL");
        check("yes mac=x", "printed more than 65536 bytes");
        let error = ask(Path::new("/nonexistent/id"), RunLimits::default(), &LinuxClock::new()).unwrap_err();
        assert!(error.to_string().starts_with("cannot run /nonexistent/id: "), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_after_its_time_and_by_a_stop() {
        let programs = Programs::new(&[("id", "sleep 1000 & wait")]);
        let limits = RunLimits { timeout: Duration::from_millis(100), ..RunLimits::default() };
        let error = ask(&programs.path("id"), limits, &LinuxClock::new()).unwrap_err();
        assert!(matches!(error, KeyValueError::TimedOut { .. }), "{error}");

        let clock = LinuxClock::new();
        clock.request_stop();
        let asked = Instant::now();
        let error = ask(&programs.path("id"), RunLimits::default(), &clock).unwrap_err();
        assert!(matches!(error, KeyValueError::Stopped { .. }), "{error}");
        assert!(asked.elapsed() < Duration::from_millis(1500), "{:?}", asked.elapsed());
    }

    #[test]
    fn what_a_program_leaves_behind_does_not_hold_it_up() {
        assert_eq!(identity_of("echo mac=x; sleep 1000 &").unwrap(), "mac=x");
    }
}
