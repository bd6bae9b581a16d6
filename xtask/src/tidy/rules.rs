//! House rules that are visible in the text of one file.

use std::path::Path;

use crate::source;

/// Where `unsafe` may stand.
const UNSAFE_ALLOWED: &[&str] = &["crates/linux/", "crates/ffi/"];

/// Crate roots that must forbid `unsafe` to the compiler too.
const UNSAFE_FORBIDDEN: &[&str] = &[
    "crates/artifact/src/lib.rs",
    "crates/client-core/src/lib.rs",
    "crates/bootloader-uboot/src/lib.rs",
    "crates/bootloader-grub/src/lib.rs",
    "crates/device/src/lib.rs",
    "crates/doctor/src/lib.rs",
    "crates/http/src/lib.rs",
    "crates/manual/src/lib.rs",
    "crates/service/src/lib.rs",
    "daemon/src/main.rs",
    "server/core/src/lib.rs",
    "server/testserver/src/lib.rs",
    "server/src/main.rs",
    "tools/artifact/src/lib.rs",
    "tools/artifact/src/main.rs",
    "xtask/src/lib.rs",
    "xtask/src/main.rs",
    "xtask/demo/src/main.rs",
    "xtask/desk/src/main.rs",
];

/// Starts of paths that exist on somebody's machine only. Written in pieces: this file is checked too.
const PRIVATE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// What is said about a test that sleeps.
const SLEEP: &str = "tests do not sleep; where one must, a comment above says why";

/// What makes markup of a text, in a browser.
const MARKUP: &[&str] = &["InnerHTML", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"];

/// Rules for every text file.
pub fn text_findings(path: &Path, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for private in PRIVATE_PATHS.iter().filter(|private| has_absolute_path(line, private)) {
            findings.push(format!("{}:{}: {private} is a path of one machine", path.display(), index + 1));
        }
    }
    findings
}

/// Whether a path in `line` begins with `start`; the middle of a longer path does not count.
fn has_absolute_path(line: &str, start: &str) -> bool {
    line.match_indices(start)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}/".contains(c)))
}

/// Rules for the scripts of the server's page. Libraries are as their authors publish them.
pub fn page_findings(path: &Path, text: &str) -> Vec<String> {
    let is_ours = path.starts_with("server/page") && !path.starts_with("server/page/lib");
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|_| is_ours) {
        for word in MARKUP.iter().filter(|word| line.contains(**word)) {
            findings.push(format!(
                "{}:{}: {word} makes markup of a text: names and logs of devices are data",
                path.display(),
                index + 1
            ));
        }
    }
    findings
}

/// Rules for Rust source.
pub fn source_findings(path: &Path, text: &str) -> Vec<String> {
    let name = path.to_string_lossy();
    let mut findings = Vec::new();
    let mut say = |line: usize, what: &str| findings.push(format!("{name}:{line}: {what}"));

    if !text.lines().any(|line| line.starts_with("//!")) {
        say(1, "no module comment (//!) says what this file is");
    }
    if UNSAFE_FORBIDDEN.contains(&&*name) && !text.contains("#![forbid(unsafe_code)]") {
        say(1, "#![forbid(unsafe_code)] is missing");
    }
    let code = source::code_only(text);
    let lines: Vec<&str> = text.lines().collect();
    let tests_start = first_line_of_tests(&name, &code);
    for (index, line) in code.lines().enumerate() {
        let number = index + 1;
        if source::has_word(line, "unsafe") {
            if !UNSAFE_ALLOWED.iter().any(|allowed| name.starts_with(allowed)) {
                say(number, "unsafe code outside of linux");
            } else if opens_unsafe_block(line) && !has_safety_comment(&lines, index) {
                say(number, "unsafe without // SAFETY: above it");
            }
        }
        if line.replace(' ', "").contains("#[ignore") {
            say(number, "a test that is ignored tests nothing");
        }
        if line.contains("&& let ") {
            say(number, "let chains need a newer compiler than rust-version says");
        }
        let sleeps = line.contains("thread::sleep") || line.contains("sleep(Duration");
        if number >= tests_start && sleeps && !has_comment_above(&lines, index) {
            say(number, SLEEP);
        }
    }
    findings
}

/// An `unsafe fn` states its contract in `# Safety` instead; clippy looks for that.
fn opens_unsafe_block(line: &str) -> bool {
    source::tokens(line).windows(2).any(|pair| pair[0].1 == "unsafe" && ["{", "impl"].contains(&pair[1].1))
        || line.trim_end().ends_with("unsafe")
}

/// Whether the comment above the statement of line `index`, or one on that line, begins a reason.
fn has_safety_comment(lines: &[&str], index: usize) -> bool {
    let statement_may_begin_above = lines[..index]
        .iter()
        .rev()
        .skip_while(|line| !is_comment(line) && !line.trim_end().ends_with([';', '{', '}']))
        .take_while(|line| is_comment(line));
    lines[index].contains("SAFETY:")
        || statement_may_begin_above.into_iter().any(|line| line.contains("SAFETY:"))
}

fn has_comment_above(lines: &[&str], index: usize) -> bool {
    lines[..index].last().is_some_and(|line| line.trim_start().starts_with("//"))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//") || line.trim_start().starts_with("#[")
}

/// A file under `tests/` and testkit are tests from their first line; elsewhere tests come last.
fn first_line_of_tests(name: &str, code: &str) -> usize {
    if name.contains("/tests/")
        || name.starts_with("tests/")
        || name.starts_with("crates/testkit/")
        || name.ends_with("/tests.rs")
        || name.ends_with("/test_support.rs")
    {
        return 1;
    }
    source::first_line_of_tests(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, complaints: &[&str]) {
        let found = source_findings(Path::new(path), text);
        let said: Vec<&str> = found.iter().filter_map(|finding| finding.strip_prefix(path)).collect();
        assert_eq!(said, complaints);
    }

    #[test]
    fn unsafe_outside_its_crates_is_reported() {
        check("daemon/src/a.rs", "//! A.\nunsafe { f() }", &[":2: unsafe code outside of linux"]);
        check("daemon/src/a.rs", "//! No unsafe here.\nlet s = \"unsafe\";", &[]);
    }

    #[test]
    fn unsafe_without_a_reason_is_reported() {
        let complaint = [":2: unsafe without // SAFETY: above it"];
        check("crates/linux/src/a.rs", "//! A.\nlet x = unsafe { f() };", &complaint);
        check(
            "crates/linux/src/a.rs",
            "//! A.\n// SAFETY: f is fine.\n// Always.\nlet x = unsafe { f() };",
            &[],
        );
        check("crates/linux/src/a.rs", "//! A.\n// SAFETY: fine.\nlet x =\n    unsafe { f() };", &[]);
        check(
            "crates/linux/src/a.rs",
            "//! A.\n// SAFETY: fine.\nf();\nunsafe { g() }",
            &[":4: unsafe without // SAFETY: above it"],
        );
    }

    #[test]
    fn a_crate_root_that_does_not_forbid_unsafe_is_reported() {
        check("daemon/src/main.rs", "//! A.", &[":1: #![forbid(unsafe_code)] is missing"]);
        check("daemon/src/main.rs", "//! A.\n#![forbid(unsafe_code)]", &[]);
    }

    #[test]
    fn ignored_and_sleeping_tests_are_reported() {
        check(
            "daemon/src/a.rs",
            "//! A.\n#[ignore = \"slow\"]",
            &[":2: a test that is ignored tests nothing"],
        );
        let sleep = "//! A.\nstd::thread::sleep(d);\n#[cfg(test)]\nmod tests { fn f() { thread::sleep(d) } }";
        check("daemon/src/a.rs", sleep, &[&*format!(":4: {SLEEP}")]);
        check("tests/a.rs", "//! A.\n// A sampling interval.\nthread::sleep(d);", &[]);
        check("tests/a.rs", "//! A.\n\nthread::sleep(d);", &[&*format!(":3: {SLEEP}")]);
    }

    #[test]
    fn what_the_oldest_compiler_does_not_know_is_reported() {
        let complaint = [":2: let chains need a newer compiler than rust-version says"];
        check("daemon/src/a.rs", "//! A.\nif a && let Some(b) = c {}", &complaint);
    }

    #[test]
    fn a_file_that_does_not_say_what_it_is_is_reported() {
        check("daemon/src/a.rs", "fn f() {}", &[":1: no module comment (//!) says what this file is"]);
    }

    #[test]
    fn a_script_of_the_page_that_makes_markup_of_a_text_is_reported() {
        let found = |path: &str| page_findings(Path::new(path), "a;\nrow.innerHTML = name;\n");
        let complaint = ":2: innerHTML makes markup of a text: names and logs of devices are data";
        for path in ["server/page/ui.js", "server/page/pages/devices.js"] {
            assert_eq!(found(path), [format!("{path}{complaint}")]);
        }
        assert!(found("server/page/lib/preact.js").is_empty());
        assert!(found("tests/page/browser.js").is_empty());
    }

    #[test]
    fn a_path_of_one_machine_is_reported() {
        let path = Path::new("a.md");
        let line = concat!("see /wo", "rk/main and x", "/ro", "ot/y");
        let complaint = concat!("a.md:1: /wo", "rk/ is a path of one machine");
        assert_eq!(text_findings(path, line), [complaint]);
        assert_eq!(text_findings(path, "network/x and /workspace and ./root/y"), Vec::<String>::new());
    }
}
