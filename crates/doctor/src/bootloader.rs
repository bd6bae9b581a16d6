//! Whether the bootloader does its part: what the variables say, what this boot shows, and what restarts a trial.
//!
//! That a bootloader counts is seen only while a trial runs. Otherwise there is evidence or there is none, and both are told
//! as that.

use client_core::boot::mender_vars::{
    BOOT_COUNT, BOOT_PART, BOOT_PART_HEX, CANARY, CHECK_CANARY, UPGRADE_AVAILABLE,
};
use client_core::slot::Slot;

use crate::env::{self, ALTERNATIVE, BOOT_LIMIT, MENDER_SETUP, Whose};
use crate::finding::{self as check, Finding, add};
use crate::slots;
use crate::world::World;

/// What this boot shows.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The slot that rust-ota's boot logic says it chose.
    pub(crate) chosen: Option<String>,
    /// Seconds after which a panic restarts the machine; 0 for never.
    pub(crate) panic_seconds: Option<i64>,
    /// Each watchdog with what it does.
    pub(crate) watchdogs: Vec<(String, Option<String>)>,
}

pub(crate) fn gather(world: &World) -> Facts {
    let command_line = world.places().command_line();
    let words = || command_line.split_ascii_whitespace();
    let panic_word = words().filter_map(|word| word.strip_prefix("panic=")).next_back();
    let panic_now = || world.text("/proc/sys/kernel/panic");
    let state = |name: String| {
        let state = world.text(format!("/sys/class/watchdog/{name}/state"));
        (name, state)
    };
    let mut watchdogs: Vec<_> = world.names_in("/sys/class/watchdog").into_iter().map(state).collect();
    if watchdogs.is_empty() && world.at("/dev/watchdog").exists() {
        watchdogs.push(("watchdog".into(), None));
    }
    Facts {
        chosen: words().filter_map(|word| word.strip_prefix("rota.slot=")).next_back().map(str::to_owned),
        panic_seconds: panic_now().or(panic_word.map(str::to_owned)).and_then(|text| text.parse().ok()),
        watchdogs,
    }
}

/// Everything that is known together.
pub(crate) struct Known<'a> {
    pub(crate) boot: &'a Facts,
    pub(crate) env: &'a env::Facts,
    pub(crate) slots: &'a slots::Facts,
    /// Whether the record has a deployment in progress.
    pub(crate) in_progress: bool,
}

pub(crate) fn judge(known: &Known<'_>) -> Vec<Finding> {
    let mut said = Vec::new();
    if known.slots.are_configured() {
        let found = known.env.found.as_ref().ok();
        let inspected = found.and_then(|found| found.inspected.as_ref().ok().map(|env| (found.whose, env)));
        if let Some((whose, env)) = inspected.filter(|(_, env)| env.active.is_some()) {
            said.extend(judge_variables(known, whose, &|name| env.value(name)));
        }
    }
    if !known.slots.is_virtual() {
        said.extend(judge_restarts(known.boot));
    }
    said
}

/// The value of a variable.
type Value<'v> = dyn Fn(&str) -> Option<&'v str> + 'v;

fn judge_variables(known: &Known<'_>, whose: Whose, value: &Value<'_>) -> Vec<Finding> {
    let mut said = Vec::new();
    let canary = match (value(CHECK_CANARY), value(CANARY)) {
        (Some("1"), Some("1")) => {
            add(
                &mut said,
                &check::ENV_CANARY,
                format_args!("the bootloader has written its canary into this environment"),
            );
            true
        }
        (Some("1"), _) => {
            add(
                &mut said,
                &check::ENV_CANARY_MISSING,
                format_args!("{CHECK_CANARY} is set, and {CANARY} is not"),
            );
            false
        }
        (_, _) => false,
    };
    let trial = match value(UPGRADE_AVAILABLE) {
        None | Some("" | "0") => false,
        Some("1") => true,
        Some(other) => {
            add(
                &mut said,
                &check::ENV_VARIABLE,
                format_args!("{UPGRADE_AVAILABLE} is {other:?}, expected 0 or 1"),
            );
            return said;
        }
    };
    let selected = match selected(known.slots, value) {
        Ok(selected) => selected,
        Err(problem) => {
            said.extend(problem.map(|text| check::ENV_VARIABLE.found(format_args!("{text}"))));
            return said;
        }
    };
    said.extend(wrong_hexadecimal(value));
    let running = known.slots.running();
    let here = running == Some(selected);
    let count = value(BOOT_COUNT).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    match (trial, here, running) {
        (false, false, Some(running)) if !known.in_progress => add(
            &mut said,
            &check::BOOTS_ANOTHER,
            format_args!("the environment says slot {selected}, slot {running} runs, and no trial is open"),
        ),
        (false, _, _) => {
            add(&mut said, &check::SELECTED, format_args!("slot {selected} is selected, no trial is open"))
        }
        (true, true, _) if count == 0 && !known.slots.is_virtual() => add(
            &mut said,
            &check::DOES_NOT_COUNT,
            format_args!("slot {selected} runs on trial, and {BOOT_COUNT} is 0 in this environment"),
        ),
        (true, true, _) => add(
            &mut said,
            &check::COUNTS,
            format_args!("slot {selected} runs on trial, {BOOT_COUNT}={count}"),
        ),
        (true, false, _) => add(
            &mut said,
            &check::SELECTED,
            format_args!("slot {selected} is armed: its trial begins with the next restart"),
        ),
    }
    let counted = trial && here && count > 0;
    if !known.slots.is_virtual() {
        said.extend(judge_logic(known, whose, value, canary, counted));
    }
    said
}

/// The slot that is selected; an error without words where the fault is told elsewhere.
fn selected(slots: &slots::Facts, value: &Value<'_>) -> Result<Slot, Option<String>> {
    let Some(part) = value(BOOT_PART) else {
        return Err(Some(format!("{BOOT_PART} is not set: the bootloader is not set up for two slots")));
    };
    let [a, b] = &slots.slots;
    let (Ok(a), Ok(b)) = (&a.number, &b.number) else { return Err(None) };
    let slot = part.parse().ok().and_then(|number| slots.numbered(number));
    slot.ok_or_else(|| Some(format!("{BOOT_PART} is {part:?}, and the slots are {a} and {b}")))
}

fn wrong_hexadecimal(value: &Value<'_>) -> Option<Finding> {
    let number: u32 = value(BOOT_PART)?.parse().ok()?;
    let text = value(BOOT_PART_HEX)?;
    let is_right = u32::from_str_radix(text, 16) == Ok(number);
    (!is_right).then(|| {
        check::ENV_VARIABLE.found(format_args!(
            "{BOOT_PART_HEX} is {text:?}, and {BOOT_PART} is {number}, which is {number:x}"
        ))
    })
}

/// What shows that boots are counted, and what does not.
fn judge_logic(
    known: &Known<'_>,
    whose: Whose,
    value: &Value<'_>,
    canary: bool,
    counted: bool,
) -> Vec<Finding> {
    let mut said = Vec::new();
    let (chosen, running) = (known.boot.chosen.as_deref(), known.slots.running());
    if let (Some(chosen), Some(running)) = (chosen, running) {
        let letter = if running == Slot::A { "a" } else { "b" };
        if chosen != letter {
            add(
                &mut said,
                &check::LOGIC_SLOT,
                format_args!("the boot logic chose slot {chosen} (rota.slot=), and slot {running} runs"),
            );
        }
    }
    let is_there = |name: &str| value(name).is_some_and(|text| !text.is_empty());
    let limit = value(BOOT_LIMIT).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    // Each with the words for it.
    let strong = [
        (counted, "this trial was counted"),
        (chosen.is_some(), "rust-ota's boot logic chose this slot (rota.slot= on the kernel's command line)"),
        (
            canary && (is_there(ALTERNATIVE) || is_there(MENDER_SETUP)),
            "the bootloader has written to this environment, and has the commands of meta-mender",
        ),
    ];
    let weak = [
        (limit > 0, BOOT_LIMIT),
        (is_there(ALTERNATIVE), ALTERNATIVE),
        (is_there(MENDER_SETUP), MENDER_SETUP),
        (canary, "the canary"),
        (is_there(BOOT_COUNT), BOOT_COUNT),
    ];
    let names = |wanted: bool| {
        let names: Vec<&str> = weak.iter().filter(|(is, _)| *is == wanted).map(|(_, name)| *name).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let strong: Vec<&str> = strong.iter().filter(|(is, _)| *is).map(|(_, text)| *text).collect();
    if strong.is_empty() {
        add(
            &mut said,
            &check::NO_EVIDENCE,
            format_args!(
                "nothing shows that the bootloader counts: there is no rota.slot= on the kernel's command line; of the rest \
             the environment has {}, and not {}",
                names(true),
                names(false)
            ),
        );
    } else {
        add(&mut said, &check::EVIDENCE, format_args!("{}", strong.join("; ")));
    }
    // Our script has its own limit, and needs no command for the way back.
    if whose == Whose::UBoot && chosen.is_none() {
        if limit == 0 {
            add(&mut said, &check::NO_LIMIT, format_args!("{BOOT_LIMIT} is not set in U-Boot's environment"));
        }
        if !is_there(ALTERNATIVE) {
            add(
                &mut said,
                &check::NO_ALTERNATIVE,
                format_args!("{ALTERNATIVE} is not set in U-Boot's environment"),
            );
        }
    }
    said
}

fn judge_restarts(boot: &Facts) -> Vec<Finding> {
    let panic = match boot.panic_seconds {
        None | Some(0) => {
            check::PANIC_STAYS.found(format_args!("a panic of the kernel stops the machine (panic=0)"))
        }
        Some(seconds) if seconds < 0 => {
            check::PANIC.found(format_args!("a panic of the kernel restarts the machine at once"))
        }
        Some(seconds) => {
            check::PANIC.found(format_args!("a panic of the kernel restarts the machine after {seconds} s"))
        }
    };
    let active = boot.watchdogs.iter().find(|(_, state)| state.as_deref() == Some("active"));
    let watchdog = match (active, boot.watchdogs.first()) {
        (Some((name, _)), _) => check::WATCHDOG.found(format_args!("{name} runs")),
        (None, Some((name, None))) => {
            check::WATCHDOG.found(format_args!("{name} is there; whether it runs the kernel does not tell"))
        }
        (None, Some((name, Some(state)))) => check::WATCHDOG_IDLE.found(format_args!("{name} is {state}")),
        (None, None) => check::WATCHDOG_NONE.found(format_args!("there is no hardware watchdog")),
    };
    vec![panic, watchdog]
}
