//! What single steps of the server cost, without the network around them: for `rust-ota-server measure`. Times are those of
//! the processor, so that they do not depend on what else the machine does.

use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;

use crate::domain::token::{Subject, TokenKey};
use crate::model::time::Timestamp;
use crate::work::query::pattern;

/// How long the checks of `count` different tokens take: of those that this server writes, and of those of older servers,
/// which were signed. `None` when the system has no random numbers.
pub fn token_checks(count: u32) -> Option<(Duration, Duration)> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok()?;
    let key = TokenKey::from_pkcs8(pkcs8.as_ref())?;
    let now = Timestamp::now();
    let tokens: Vec<String> = (0..count)
        .map(|number| {
            let (auth_set, device) = (format!("set-{number:036}"), format!("device-{number:036}"));
            key.issue(Subject::Device { auth_set: &auth_set, device: &device, serial: 0 }, now, 3600)
        })
        .collect();
    let old: Vec<String> = tokens.iter().filter_map(|token| key.sign_as_before(token)).collect();
    let check = |tokens: &[String]| {
        let began = worked();
        let valid = tokens.iter().filter(|token| key.verify(token, now).is_ok()).count();
        (valid == tokens.len()).then(|| worked().saturating_sub(began))
    };
    Some((check(&tokens)?, check(&old)?))
}

/// How long one pattern takes to be looked for in `count` names, and in how many it was found. `None` when it is no pattern.
pub fn pattern_searches(text: &str, count: u32) -> Option<(Duration, usize)> {
    let pattern = pattern(text).ok()?;
    let names: Vec<String> = (0..count).map(|number| format!("device-{number:07}-of-the-fleet")).collect();
    let began = worked();
    let found = names.iter().filter(|name| pattern.is_match(name)).count();
    Some((worked().saturating_sub(began), found))
}

/// How long this thread has had a processor.
fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
