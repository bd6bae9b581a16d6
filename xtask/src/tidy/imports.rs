//! Who may import whom: the table that ARCHITECTURE.md quotes, and the check that nobody else does.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::source;

/// What one package may depend on.
struct PackageRule {
    name: &'static str,
    workspace: &'static [&'static str],
    outside: &'static [&'static str],
}

const PACKAGES: &[PackageRule] = &[
    PackageRule {
        name: "rust-ota-artifact-format",
        workspace: &[],
        outside: &[
            "serde",
            "serde_json",
            "flate2",
            "liblzma",
            "zstd",
            "ed25519-dalek",
            "ring",
            "aes",
            "sha2",
            "base64",
            "log",
        ],
    },
    PackageRule {
        name: "rust-ota-client-core",
        workspace: &["rust-ota-artifact-format"],
        outside: &["serde", "serde_json", "sha2", "log"],
    },
    PackageRule {
        name: "rust-ota-server-mender",
        workspace: &["rust-ota-client-core"],
        outside: &["serde_json", "sha2", "base64", "log"],
    },
    PackageRule {
        name: "rust-ota-bootloader-uboot",
        workspace: &["rust-ota-client-core"],
        outside: &["crc32fast", "log"],
    },
    PackageRule {
        name: "rust-ota-bootloader-grub",
        workspace: &["rust-ota-client-core"],
        outside: &["sha2", "log"],
    },
    PackageRule {
        name: "rust-ota-linux",
        workspace: &["rust-ota-client-core", "rust-ota-bootloader-uboot", "rust-ota-bootloader-grub"],
        outside: &["nix", "libc", "fs2", "log"],
    },
    PackageRule {
        name: "rust-ota-http",
        workspace: &["rust-ota-client-core"],
        outside: &["ureq", "rustls", "ring", "base64", "log"],
    },
    PackageRule {
        name: "rust-ota-device",
        workspace: &["rust-ota-client-core", "rust-ota-http", "rust-ota-linux", "rust-ota-server-mender"],
        outside: &["log", "ring", "serde_json"],
    },
    PackageRule {
        name: "rust-ota",
        workspace: &[
            "rust-ota-client-core",
            "rust-ota-device",
            "rust-ota-http",
            "rust-ota-linux",
            "rust-ota-server-mender",
        ],
        outside: &["ureq", "httparse", "lexopt", "log", "serde_json", "zbus"],
    },
    PackageRule {
        name: "rust-ota-artifact",
        workspace: &["rust-ota-artifact-format"],
        outside: &["lexopt", "serde_json", "rustix"],
    },
    PackageRule {
        name: "rust-ota-server",
        workspace: &["rust-ota-artifact-format"],
        outside: &[
            "tokio",
            "hyper",
            "hyper-util",
            "http-body-util",
            "tokio-rustls",
            "tokio-tungstenite",
            "futures-util",
            "multer",
            "p521",
            "redb",
            "ring",
            "rustix",
            "base64",
            "serde",
            "serde_json",
            "regex",
            "flate2",
            "ureq",
            "lexopt",
            "log",
        ],
    },
    PackageRule {
        name: "rust-ota-testkit",
        workspace: &["rust-ota-client-core", "rust-ota-server-mender"],
        outside: &[],
    },
    PackageRule { name: "interop", workspace: &[ANY], outside: &["tempfile", "serde_json"] },
    PackageRule {
        name: "board-tests",
        workspace: &["rust-ota-client-core", "rust-ota-server", "rust-ota-testkit"],
        outside: &["fs2", "serde_json", "sha2", "tempfile"],
    },
    PackageRule { name: "xtask", workspace: &[], outside: &["serde_json"] },
    PackageRule {
        name: "desk",
        workspace: &["rust-ota-client-core", "rust-ota-testkit", "xtask"],
        outside: &["serde_json"],
    },
    PackageRule { name: "demo", workspace: &[], outside: &[] },
];

/// In place of a name: every package of the workspace.
const ANY: &str = "any";

/// What tests may use besides everything that is in the table.
const TESTS_TOO: &[&str] = &["tempfile"];

/// What a module of `client-core` may import of its siblings.
const MODULES: &[(&str, &[&str])] = &[
    ("storage", &[]),
    ("clock", &[]),
    ("schedule", &["clock"]),
    ("server", &["clock", "deploy"]),
    ("slot", &["storage"]),
    ("state_store", &["storage"]),
    ("provides", &[]),
    ("boot", &["slot", "storage"]),
    ("install", &["boot", "slot", "storage"]),
    ("deploy", &["boot", "install", "provides", "slot", "state_store", "storage"]),
    ("agent", &["clock", "deploy", "schedule", "server"]),
];

const CORE: &str = "crates/client-core/src";

/// The table as ARCHITECTURE.md shows it.
pub fn table() -> String {
    let mut table = "| package | workspace imports | outside imports |\n| --- | --- | --- |\n".to_owned();
    for rule in PACKAGES {
        table += &format!("| {} | {} | {} |\n", rule.name, list(rule.workspace), list(rule.outside));
    }
    table += &format!("\nTests may use everything in this table, and {}.\n", TESTS_TOO.join(", "));
    table += "\n| module of client-core | imports of its siblings |\n| --- | --- |\n";
    for (module, imports) in MODULES {
        table += &format!("| {module} | {} |\n", list(imports));
    }
    table
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What `metadata` of cargo has beside the table.
pub fn package_findings(metadata: &Value) -> Vec<String> {
    let none = Vec::new();
    let packages = metadata["packages"].as_array().unwrap_or(&none);
    let mut findings = Vec::new();
    for package in packages {
        let name = text(&package["name"]);
        let Some(rule) = PACKAGES.iter().find(|rule| rule.name == name) else {
            findings.push(format!("Cargo.toml: package {name} is not in the import table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap_or(&none) {
            let (to, in_workspace) = (text(&dependency["name"]), dependency["path"].is_string());
            let allowed = if in_workspace { rule.workspace } else { rule.outside };
            let for_tests = dependency["kind"] == "dev" && tests_may_import(to);
            let any = in_workspace && allowed.contains(&ANY);
            if !(for_tests || any || allowed.contains(&to)) {
                findings.push(format!("Cargo.toml: {name} must not import {to}"));
            }
        }
    }
    let known = |rule: &&PackageRule| packages.iter().any(|package| package["name"] == rule.name);
    for rule in PACKAGES.iter().filter(|rule| !known(rule)) {
        findings.push(format!("Cargo.toml: {} is in the import table and not in the workspace", rule.name));
    }
    findings
}

fn tests_may_import(name: &str) -> bool {
    let in_table = |rule: &PackageRule| {
        rule.name == name || rule.workspace.contains(&name) || rule.outside.contains(&name)
    };
    TESTS_TOO.contains(&name) || PACKAGES.iter().any(in_table)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Modules of client-core that the table does not know, and rows without a module.
pub fn module_table_findings(files: &[PathBuf]) -> Vec<String> {
    let mut modules: Vec<String> = files.iter().filter_map(|path| Some(module_of(path)?.0)).collect();
    modules.dedup();
    let unknown = modules
        .iter()
        .filter(|module| MODULES.iter().all(|(known, _)| known != module))
        .map(|module| format!("{CORE}: module {module} is not in the import table"));
    let empty = MODULES
        .iter()
        .filter(|(known, _)| modules.iter().all(|module| module != known))
        .map(|(known, _)| format!("{CORE}: {known} is in the import table and is no module"));
    unknown.chain(empty).collect()
}

/// Imports in one file of client-core that the table does not allow.
pub fn module_findings(path: &Path, text: &str) -> Vec<String> {
    let Some((module, depth)) = module_of(path) else { return Vec::new() };
    let allowed = MODULES.iter().find(|(known, _)| *known == module).map_or(&[][..], |(_, imports)| imports);
    siblings(&source::code_only(text), depth)
        .into_iter()
        .filter(|(_, to)| {
            *to != module && MODULES.iter().any(|(known, _)| known == to) && !allowed.contains(to)
        })
        .map(|(line, to)| format!("{}:{line}: {module} must not import {to}", path.display()))
        .collect()
}

/// The module of client-core that `path` belongs to, and how deep its file lies: 1 for the module itself. The root
/// of the crate is no module.
fn module_of(path: &Path) -> Option<(String, usize)> {
    let inside = path.strip_prefix(CORE).ok()?.with_extension("");
    let mut names: Vec<String> = inside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    let depth = names.len();
    names.into_iter().next().filter(|name| name != "lib").map(|name| (name, depth))
}

/// What `code` names in the root of its crate, through `crate::` or enough `super::`, with the line. `depth` is that
/// of the file; modules written inside it are deeper.
fn siblings(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let tokens = source::tokens(code);
    let word = |at: usize| tokens.get(at).map_or("", |(_, word)| *word);
    let path_goes_on = |at: usize| word(at) == ":" && word(at + 1) == ":";
    let mut found = Vec::new();
    let mut braces = 0_usize;
    // Braces that were open where each module inside this file began.
    let mut modules: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match word(at) {
            "mod" if word(at + 2) == "{" => {
                modules.push(braces);
                braces += 1;
                at += 3;
                continue;
            }
            "{" => braces += 1,
            "}" => {
                braces = braces.saturating_sub(1);
                if modules.last() == Some(&braces) {
                    modules.pop();
                }
            }
            "crate" if path_goes_on(at + 1) => found.extend(names_after(&tokens, at + 3)),
            "super" => {
                let mut supers = 1;
                while path_goes_on(at + 1) && word(at + 3) == "super" {
                    supers += 1;
                    at += 3;
                }
                if supers == depth + modules.len() && path_goes_on(at + 1) {
                    found.extend(names_after(&tokens, at + 3));
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The first names of a path, or of every path in `{...}`.
fn names_after<'a>(tokens: &[(usize, &'a str)], start: usize) -> Vec<(usize, &'a str)> {
    let Some(first) = tokens.get(start) else { return Vec::new() };
    if first.1 != "{" {
        return vec![*first];
    }
    let mut names = Vec::new();
    let mut depth = 0;
    let mut expected = false;
    for token in &tokens[start..] {
        match token.1 {
            "{" => {
                depth += 1;
                expected = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            "," => expected = depth == 1,
            _ if expected => {
                names.push(*token);
                expected = false;
            }
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is said about one dependency of `from`, beside the packages that are not there at all.
    fn check_package(from: &str, dependency: Value, complaint: Option<&str>) {
        let metadata = json!({ "packages": [{ "name": from, "dependencies": [dependency] }] });
        let findings = package_findings(&metadata);
        let said = findings.iter().find(|finding| !finding.ends_with("not in the workspace"));
        assert_eq!(said.map(String::as_str), complaint);
    }

    fn check_module(path: &str, text: &str, complaints: &[&str]) {
        assert_eq!(module_findings(Path::new(path), text), complaints);
    }

    #[test]
    fn a_forbidden_package_is_reported() {
        let linux = json!({ "name": "rust-ota-linux", "kind": null, "path": "somewhere" });
        check_package(
            "rust-ota-client-core",
            linux,
            Some("Cargo.toml: rust-ota-client-core must not import rust-ota-linux"),
        );
        let tokio = json!({ "name": "tokio", "kind": null });
        check_package("rust-ota", tokio, Some("Cargo.toml: rust-ota must not import tokio"));
        let tests = json!({ "name": "rand", "kind": "dev" });
        check_package("rust-ota-linux", tests, Some("Cargo.toml: rust-ota-linux must not import rand"));
        let build = json!({ "name": "tempfile", "kind": "build" });
        check_package("rust-ota-linux", build, Some("Cargo.toml: rust-ota-linux must not import tempfile"));
    }

    #[test]
    fn an_outside_package_with_the_name_of_one_of_ours_is_reported() {
        let outside = json!({ "name": "rust-ota-client-core", "kind": null });
        check_package(
            "rust-ota-linux",
            outside,
            Some("Cargo.toml: rust-ota-linux must not import rust-ota-client-core"),
        );
    }

    #[test]
    fn what_the_table_has_is_allowed_and_tests_may_use_more() {
        check_package(
            "rust-ota-linux",
            json!({ "name": "rust-ota-client-core", "kind": null, "path": "x" }),
            None,
        );
        check_package("rust-ota-linux", json!({ "name": "nix", "kind": null }), None);
        check_package("rust-ota-linux", json!({ "name": "tempfile", "kind": "dev" }), None);
        check_package("rust-ota-linux", json!({ "name": "flate2", "kind": "dev" }), None);
        check_package("interop", json!({ "name": "rust-ota", "kind": null, "path": "x" }), None);
    }

    #[test]
    fn a_package_that_nobody_put_into_the_table_is_reported() {
        let metadata = json!({ "packages": [{ "name": "newcomer", "dependencies": [] }] });
        assert!(package_findings(&metadata)[0].contains("newcomer is not in the import table"));
    }

    #[test]
    fn a_forbidden_module_is_reported_however_it_is_named() {
        let boot = format!("{CORE}/boot.rs");
        let complaint = [&*format!("{boot}:2: boot must not import deploy")];
        check_module(&boot, "\nuse crate::deploy::run;", &complaint);
        check_module(&boot, "\nuse crate::{slot::Slot, deploy::{self, run}};", &complaint);
        check_module(&boot, "\nuse super::deploy;", &complaint);
        check_module(&boot, "\nfn f() { crate::deploy::run() }", &complaint);
        check_module(&boot, "\nmod tests { use super::super::deploy; }", &complaint);
        let tar = format!("{CORE}/artifact/tar.rs");
        let complaint = [&*format!("{tar}:1: artifact must not import slot")];
        check_module(&tar, "use super::super::slot::Slot;", &complaint);
        check_module(&format!("{CORE}/artifact/mod.rs"), "use super::artifact::tar;", &[]);
    }

    #[test]
    fn allowed_modules_own_parts_and_comments_are_not() {
        let install = format!("{CORE}/install/mod.rs");
        check_module(&install, "use crate::{artifact, boot::BootEnv, install::error};", &[]);
        check_module(
            &install,
            "// use crate::deploy;\nmod tests { use super::*; }\nuse self::x::deploy;",
            &[],
        );
        check_module(&format!("{CORE}/lib.rs"), "pub use crate::deploy::run;", &[]);
        check_module("daemon/src/slot.rs", "use crate::deploy;", &[]);
    }

    #[test]
    fn a_module_outside_the_table_is_reported() {
        let files = [PathBuf::from(format!("{CORE}/gossip.rs"))];
        assert!(module_table_findings(&files)[0].contains("module gossip is not in the import table"));
    }
}
