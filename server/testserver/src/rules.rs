//! Faults on order, for tests: what a network, a proxy or a server does to a client on a bad day.
//!
//! A [`Rule`] says which requests it is for and what happens to them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Which requests something happens to, and what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Only this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only paths (with their query) that contain this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Only bodies that contain this. Bodies of uploads are not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Leave that many matching requests alone first.
    #[serde(default)]
    pub skip: u64,
    /// Then do it that many times; 0 is for ever.
    #[serde(default = "once")]
    pub times: u64,
    /// What happens.
    pub action: Action,
}

fn once() -> u64 {
    1
}

/// What happens to a request or its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Close the connection after that many bytes of the answer's body; with 0, before its head.
    Cut {
        /// Bytes of the body.
        after: u64,
    },
    /// Stop sending after that many bytes of the answer's body and keep the connection.
    Stall {
        /// Bytes of the body.
        after: u64,
        /// How long, or for ever.
        #[serde(default)]
        seconds: Option<f64>,
    },
    /// Stop sending after that many bytes of the answer's body, and go on when other rules are set.
    Hold {
        /// Bytes of the body.
        after: u64,
    },
    /// Answer this, and do nothing of what was asked.
    Status {
        /// The status code.
        code: u16,
        /// Headers beside `Content-Length`.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// The body.
        #[serde(default)]
        body: String,
    },
    /// To a request for a range: 206 with a range that begins that many bytes away, and its bytes.
    WrongRange {
        /// How far away.
        shift: i64,
        /// Shift what is said only, and send the bytes that were asked for.
        #[serde(default)]
        header_only: bool,
    },
    /// To a request for a range: 200 and everything.
    IgnoreRange,
    /// Send other bytes of the same length.
    ChangeContent {
        /// Under the entity tag of the right ones.
        #[serde(default)]
        same_etag: bool,
    },
    /// Answer 302, to `to` or else to the same path.
    Redirect {
        /// The new address.
        #[serde(default)]
        to: Option<String>,
    },
    /// Send the answer slowly.
    Throttle {
        /// How slowly.
        bytes_per_second: u64,
    },
    /// Send bytes that are no HTTP, and close the connection.
    Garbage {
        /// How many.
        bytes: usize,
    },
    /// Wait before the head of the answer.
    SlowHead {
        /// How long.
        seconds: f64,
    },
    /// Do what was asked, and close the connection without an answer.
    LoseAnswer,
}

impl Rule {
    /// The rule that does `action` to every request, once.
    pub fn new(action: Action) -> Rule {
        Rule { method: None, path: None, body: None, skip: 0, times: 1, action }
    }

    /// Only for this method.
    pub fn method(mut self, method: &str) -> Rule {
        self.method = Some(method.to_owned());
        self
    }

    /// Only for paths that contain `part`.
    pub fn path(mut self, part: &str) -> Rule {
        self.path = Some(part.to_owned());
        self
    }

    /// Only for bodies that contain `part`.
    pub fn body(mut self, part: &str) -> Rule {
        self.body = Some(part.to_owned());
        self
    }

    /// Not for the first `count` of them.
    pub fn skip(mut self, count: u64) -> Rule {
        self.skip = count;
        self
    }

    /// `count` times; 0 is for ever.
    pub fn times(mut self, count: u64) -> Rule {
        self.times = count;
        self
    }

    fn matches(&self, method: &str, path: &str, body: &[u8]) -> bool {
        let contains = |body: &[u8], part: &str| {
            part.is_empty() || body.windows(part.len()).any(|window| window == part.as_bytes())
        };
        self.method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self.path.as_ref().is_none_or(|part| path.contains(part.as_str()))
            && self.body.as_ref().is_none_or(|part| contains(body, part))
    }
}

/// Sets and clears faults while a server runs.
#[derive(Debug, Clone, Default)]
pub struct FaultsHandle {
    rules: Arc<Mutex<Vec<Counted>>>,
    /// How often rules were set.
    changes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Counted {
    rule: Rule,
    matched: u64,
    hits: u64,
}

impl FaultsHandle {
    /// These rules and no others. The first that matches a request and is not used up decides.
    pub fn set(&self, rules: Vec<Rule>) {
        *self.lock() = rules.into_iter().map(|rule| Counted { rule, matched: 0, hits: 0 }).collect();
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// No faults.
    pub fn clear(&self) {
        self.set(Vec::new());
    }

    /// Whether the rules of now are there still.
    pub(crate) fn unchanged(&self) -> impl Fn() -> bool + Send + use<> {
        let (changes, now) = (self.changes.clone(), self.changes.load(Ordering::SeqCst));
        move || changes.load(Ordering::SeqCst) == now
    }

    /// How often each rule has happened, in their order.
    pub fn hits(&self) -> Vec<u64> {
        self.lock().iter().map(|counted| counted.hits).collect()
    }

    /// The rules that are set.
    pub fn rules(&self) -> Vec<Rule> {
        self.lock().iter().map(|counted| counted.rule.clone()).collect()
    }

    /// What happens to this request: the rule is used once more.
    pub(crate) fn take(&self, method: &str, path: &str, body: &[u8]) -> Option<Action> {
        for counted in self.lock().iter_mut().filter(|counted| counted.rule.matches(method, path, body)) {
            counted.matched += 1;
            let left = counted.rule.times == 0 || counted.hits < counted.rule.times;
            if counted.matched > counted.rule.skip && left {
                counted.hits += 1;
                return Some(counted.rule.action.clone());
            }
        }
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Counted>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_skips_then_counts_then_is_used_up() {
        let faults = FaultsHandle::default();
        faults.set(vec![
            Rule::new(Action::LoseAnswer).method("put").path("/status").body("failure").skip(1).times(2),
        ]);
        let mut happened = Vec::new();
        for _ in 0..5 {
            happened.push(faults.take("PUT", "/x/status?a", b"{\"status\":\"failure\"}").is_some());
        }
        assert_eq!(happened, [false, true, true, false, false]);
        assert_eq!(faults.hits(), [2]);
        assert_eq!(faults.take("GET", "/x/status", b"failure"), None);
    }

    #[test]
    fn rules_are_read_from_json() {
        let rules: Vec<Rule> = serde_json::from_str(
            r#"[{"path":"/download/","action":{"cut":{"after":10}}},
                {"times":0,"action":"lose_answer"},
                {"action":{"status":{"code":503,"headers":[["Retry-After","1"]]}}}]"#,
        )
        .unwrap();
        assert_eq!(rules[0], Rule::new(Action::Cut { after: 10 }).path("/download/"));
        assert_eq!(rules[1].times, 0);
        assert!(serde_json::from_str::<Rule>(r#"{"acton":"lose_answer"}"#).is_err());
    }
}
