//! The findings of one look, for people and for programs.

use serde_json::{Value, json};

use crate::finding::{Finding, Level};

/// Version of the JSON object. A newer one may have more fields; what one means never changes.
const SCHEMA: u32 = 1;

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// In the order of the areas.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst of all.
    pub fn level(&self) -> Level {
        self.findings.iter().map(|finding| finding.check.level).max().unwrap_or(Level::Ok)
    }

    /// 0 where everything is as it should be, 1 with warnings, 2 where something is wrong.
    pub fn exit_code(&self) -> u8 {
        match self.level() {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Wrong => 2,
        }
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.check.level == level).count()
    }

    /// A line for each finding, with what to do under it, what is wrong last; and how many there are of each kind.
    pub fn lines(&self) -> String {
        let width = self.findings.iter().map(|finding| finding.check.area.len()).max().unwrap_or(0);
        let of = |level| self.findings.iter().filter(move |finding| finding.check.level == level);
        let mut text = String::new();
        for finding in [Level::Ok, Level::Warning, Level::Wrong].into_iter().flat_map(of) {
            let check = finding.check;
            text.push_str(&format!("{:7}  {:width$}  {}\n", check.level.name(), check.area, finding.text));
            if !check.advice.is_empty() {
                text.push_str(&format!("{:7}  {:width$}  -> {}\n", "", "", check.advice));
            }
        }
        let [ok, warnings, wrong] = [Level::Ok, Level::Warning, Level::Wrong].map(|level| self.count(level));
        text.push_str(&format!("{ok} ok, {warnings} warnings, {wrong} wrong"));
        text
    }

    /// One object, as docs/doctor.md describes it.
    pub fn json(&self) -> Value {
        let finding = |finding: &Finding| {
            let check = finding.check;
            json!({
                "id": check.id,
                "area": check.area,
                "level": check.level.name(),
                "text": finding.text,
                "advice": check.advice,
            })
        };
        json!({
            "schema": SCHEMA,
            "result": self.level().name(),
            "exit_code": self.exit_code(),
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}
