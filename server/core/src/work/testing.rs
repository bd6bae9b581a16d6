//! Runs rules as a store does, for the tests of rules.

use super::{Attempt, Key, Loaded, Work};

/// So often a rule may begin again: it asks for something new each time.
const ROUNDS: usize = 20;

/// Runs a rule on what `work` has. What it asks for besides is not there, and has to be what `may_ask` allows.
pub(crate) fn run<T, E>(
    work: &mut Work,
    may_ask: impl Fn(&Key) -> bool,
    mut rule: impl FnMut(&mut Work) -> Result<T, E>,
) -> Result<T, E> {
    for _ in 0..ROUNDS {
        let mut answer = None;
        let attempt = work.attempt(&mut |work| {
            let result = rule(work);
            let keep = result.is_ok();
            answer = Some(result);
            keep
        });
        let Attempt::Missing(keys) = attempt else { return answer.unwrap() };
        for key in keys {
            assert!(may_ask(&key), "{key:?}");
            work.load(nothing(key));
        }
    }
    panic!("it asks for something again and again");
}

fn nothing(key: Key) -> Loaded {
    match key {
        Key::Device(id) => Loaded::Device(id, None),
        Key::Identity(sha256) => Loaded::Identity(sha256, None),
        Key::AuthSet(id) => Loaded::AuthSet(id, None),
        Key::Inventory(id) => Loaded::Inventory(id, None),
        Key::Deployment(id) => Loaded::Deployment(id, None),
        Key::Members(id) => Loaded::Members(id, None),
        Key::Record(deployment, device) => Loaded::Record(deployment, device, None),
        Key::Document(kind, id) => Loaded::Document(kind, id, None),
        Key::Count(status) => Loaded::Count(status, 0),
    }
}
