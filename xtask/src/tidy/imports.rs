//! Who may import whom: the table that ARCHITECTURE.md quotes, and the check that nobody else does.

use std::collections::{BTreeMap, BTreeSet};
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
    PackageRule { name: "rust-ota-vcdiff", workspace: &[], outside: &["liblzma"] },
    PackageRule {
        name: "rust-ota-delta-format",
        workspace: &["rust-ota-artifact-format"],
        outside: &["serde_json", "liblzma", "zstd", "sha2"],
    },
    PackageRule {
        name: "rust-ota-client-core",
        workspace: &["rust-ota-artifact-format", "rust-ota-delta-format", "rust-ota-vcdiff"],
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
        outside: &["log"],
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
    PackageRule { name: "rust-ota-manual", workspace: &[], outside: &[] },
    PackageRule {
        name: "rust-ota-doctor",
        workspace: &["rust-ota-client-core", "rust-ota-device", "rust-ota-http", "rust-ota-linux"],
        outside: &["serde_json"],
    },
    PackageRule {
        name: "rust-ota-service",
        workspace: &[
            "rust-ota-client-core",
            "rust-ota-device",
            "rust-ota-http",
            "rust-ota-linux",
            "rust-ota-server-mender",
        ],
        outside: &["ureq", "httparse", "log", "serde_json", "zbus"],
    },
    PackageRule {
        name: "rust-ota",
        workspace: &[
            "rust-ota-client-core",
            "rust-ota-device",
            "rust-ota-doctor",
            "rust-ota-linux",
            "rust-ota-manual",
            "rust-ota-service",
        ],
        outside: &["lexopt", "log", "serde_json"],
    },
    PackageRule {
        name: "rust-ota-ffi",
        workspace: &["rust-ota-client-core", "rust-ota-device", "rust-ota-linux", "rust-ota-service"],
        outside: &["libc", "log", "serde_json"],
    },
    PackageRule {
        name: "rust-ota-delta-make",
        workspace: &["rust-ota-delta-format"],
        outside: &["libsais", "sha2"],
    },
    PackageRule {
        name: "rust-ota-artifact",
        workspace: &[
            "rust-ota-artifact-format",
            "rust-ota-delta-format",
            "rust-ota-delta-make",
            "rust-ota-manual",
        ],
        outside: &["lexopt", "serde_json", "rustix", "tar"],
    },
    PackageRule {
        name: "rust-ota-server-core",
        workspace: &["rust-ota-artifact-format"],
        outside: &[
            "tokio",
            "async-trait",
            "hyper",
            "hyper-util",
            "http-body-util",
            "object_store",
            "tokio-rustls",
            "tokio-tungstenite",
            "futures-util",
            "lettre",
            "multer",
            "p521",
            "redb",
            "ring",
            "rustix",
            "base64",
            "schemars",
            "serde",
            "serde_json",
            "regex",
            "flate2",
            "ureq",
            "log",
            "roaring",
            "rusqlite",
            "tokio-postgres",
        ],
    },
    PackageRule {
        name: "rust-ota-testserver",
        workspace: &["rust-ota-server-core"],
        outside: &["tokio", "hyper", "http-body-util", "serde", "serde_json", "log"],
    },
    PackageRule {
        name: "rust-ota-server",
        workspace: &[
            "rust-ota-artifact-format",
            "rust-ota-manual",
            "rust-ota-server-core",
            "rust-ota-testserver",
        ],
        outside: &["tokio", "ring", "rustix", "base64", "serde", "serde_json", "lexopt", "log"],
    },
    PackageRule {
        name: "rust-ota-testkit",
        workspace: &["rust-ota-client-core", "rust-ota-server-mender"],
        outside: &[],
    },
    PackageRule {
        name: "fuzz-entries",
        workspace: &[
            "rust-ota-bootloader-grub",
            "rust-ota-bootloader-uboot",
            "rust-ota-client-core",
            "rust-ota-device",
            "rust-ota-server-mender",
            "rust-ota-testkit",
            "rust-ota-vcdiff",
        ],
        outside: &["crc32fast", "sha2"],
    },
    PackageRule { name: "interop", workspace: &[ANY], outside: &["tempfile", "serde_json"] },
    PackageRule {
        name: "board-tests",
        workspace: &[
            "rust-ota-artifact",
            "rust-ota-client-core",
            "rust-ota-server-core",
            "rust-ota-testkit",
            "rust-ota-testserver",
            "xtask",
        ],
        outside: &["fs2", "serde_json", "tempfile"],
    },
    PackageRule { name: "xtask", workspace: &["rust-ota-manual"], outside: &["fs2", "serde_json", "sha2"] },
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
const TESTS_TOO: &[&str] = &["cbindgen", "tempfile"];

/// What a module of `client-core` may import of its siblings.
const MODULES: &[ModuleRule] = &[
    ("agent", &["clock", "deploy", "monitor", "schedule", "server", "slot"]),
    ("boot", &["slot", "storage"]),
    ("clock", &[]),
    ("deploy", &["boot", "clock", "install", "provides", "slot", "state_store"]),
    ("install", &["boot", "slot", "storage"]),
    ("monitor", &["clock", "state_store"]),
    ("provides", &[]),
    ("schedule", &["clock"]),
    ("server", &["clock", "deploy", "monitor"]),
    ("slot", &["storage"]),
    ("state_store", &["storage"]),
    ("storage", &[]),
];

const LINUX: &[ModuleRule] = &[
    ("atomic_file", &[]),
    ("block_device", &[]),
    ("boot_env", &["atomic_file", "block_device", "lock", "regular_file"]),
    ("clock", &["process"]),
    ("daemon_process", &["clock", "lock", "process_group", "regular_file"]),
    ("explain", &[]),
    ("file_system", &[]),
    ("files", &["atomic_file", "file_system", "mounts", "payload_tree"]),
    ("flight_recorder", &["atomic_file", "regular_file"]),
    ("handlers", &["files", "payload_tree", "script_payload", "update_module"]),
    ("health_check", &["explain", "process_group"]),
    ("identity", &["key_values"]),
    ("inventory", &["explain", "key_values"]),
    ("key_values", &["explain", "process_group"]),
    ("local_socket", &[]),
    ("lock", &["clock", "regular_file"]),
    ("log_file", &["regular_file"]),
    ("memory", &[]),
    ("monitor", &["explain", "key_values", "regular_file"]),
    ("mounts", &["block_device"]),
    ("payload_tree", &["atomic_file"]),
    ("process", &[]),
    ("process_group", &["explain", "process"]),
    ("regular_file", &[]),
    ("running_slot", &["block_device", "mounts", "slot_paths"]),
    ("script_payload", &["explain", "payload_tree", "process", "process_group"]),
    ("signals", &["clock", "process", "process_group"]),
    ("slot_paths", &["block_device", "mounts"]),
    ("slots", &["block_device", "lock", "mounts", "running_slot", "slot_paths"]),
    ("state_file", &["atomic_file", "block_device", "regular_file"]),
    ("state_scripts", &["atomic_file", "explain", "process_group", "regular_file"]),
    (
        "system",
        &[
            "clock",
            "explain",
            "flight_recorder",
            "process_group",
            "regular_file",
            "running_slot",
            "slot_paths",
        ],
    ),
    (
        "update_module",
        &["atomic_file", "explain", "payload_tree", "process", "process_group", "regular_file"],
    ),
    ("week_time", &[]),
];

const SERVICE: &[ModuleRule] = &[
    ("agent", &["dbus", "deployment_log", "host", "local_proxy", "monitor", "notify", "status", "watcher"]),
    ("dbus", &["local_proxy"]),
    ("deployment_log", &[]),
    ("host", &["deployment_log", "watcher"]),
    ("local_proxy", &[]),
    ("monitor", &[]),
    ("notify", &[]),
    ("status", &[]),
    ("watcher", &["notify", "status"]),
];

const DAEMON: &[ModuleRule] =
    &[("cli", &[]), ("commands", &["cli", "logger", "printer"]), ("logger", &[]), ("printer", &[])];

const SERVER_CORE: &[ModuleRule] = &[
    (
        "api",
        &[
            "blobs",
            "bodies",
            "connect",
            "domain",
            "heard",
            "mail",
            "metrics",
            "model",
            "options",
            "page",
            "presence",
            "readiness",
            "request_id",
            "service",
            "store",
            "strangers",
            "throttle",
            "work",
        ],
    ),
    ("blobs", &["domain", "model"]),
    ("bodies", &[]),
    ("certificates", &["metrics", "model", "options", "start"]),
    ("client", &[]),
    ("connect", &["domain", "model", "service", "store", "work"]),
    ("connection", &["api", "certificates", "domain", "presence", "unread"]),
    ("deltas", &["api", "blobs", "domain", "model", "service", "store", "work"]),
    ("domain", &["model", "work"]),
    ("heard", &["model", "store", "work"]),
    ("logger", &["model", "request_id"]),
    ("mail", &["client", "domain", "metrics", "model", "rounds", "service", "store", "work"]),
    ("metrics", &["store"]),
    ("model", &[]),
    ("options", &["blobs", "mail", "retention", "store", "throttle", "webhooks"]),
    ("page", &["domain"]),
    ("places", &["domain", "model", "service", "work"]),
    ("presence", &[]),
    ("readiness", &["blobs", "service", "store", "work"]),
    ("request_id", &["domain"]),
    ("retention", &["metrics", "model", "service", "store", "work"]),
    ("rounds", &[]),
    (
        "running",
        &[
            "api",
            "blobs",
            "bodies",
            "certificates",
            "connect",
            "connection",
            "deltas",
            "domain",
            "heard",
            "mail",
            "metrics",
            "model",
            "options",
            "page",
            "places",
            "readiness",
            "retention",
            "service",
            "start",
            "store",
            "strangers",
            "throttle",
            "watched",
            "webhooks",
            "work",
        ],
    ),
    ("service", &["domain", "metrics", "model", "store", "work"]),
    ("simulated", &["domain", "model", "store", "work"]),
    ("start", &["store"]),
    ("steps", &["domain", "model", "work"]),
    ("store", &["blobs", "client", "domain", "model", "work"]),
    ("strangers", &["domain"]),
    ("throttle", &["domain", "metrics"]),
    ("transfer", &["blobs", "domain", "model", "options", "store", "work"]),
    ("unread", &[]),
    ("watched", &["api", "domain", "metrics", "model", "work"]),
    ("webhooks", &["client", "domain", "metrics", "rounds", "service", "store", "work"]),
    ("work", &["model"]),
];

const TEST_SERVER: &[ModuleRule] = &[
    ("answer", &["rules", "wire"]),
    ("around", &["answer", "recorder", "rules", "wire"]),
    ("recorder", &[]),
    ("rules", &[]),
    ("server", &["around", "recorder", "rules"]),
    ("wire", &[]),
];

const SERVER: &[ModuleRule] = &[
    ("ask", &["console", "value"]),
    ("cli", &["ask", "console", "load", "measure", "seed", "serve", "simulate", "transfer"]),
    ("console", &[]),
    ("database", &["console", "value"]),
    ("histogram", &[]),
    ("load", &["console", "histogram", "value"]),
    ("mail", &["console", "value"]),
    ("measure", &["console", "value"]),
    ("notice", &[]),
    ("seed", &["console", "value"]),
    ("serve", &["console", "database", "mail", "notice", "value"]),
    ("simulate", &["console", "histogram", "load", "serve", "value"]),
    ("transfer", &["console", "database", "value"]),
    ("value", &["console"]),
];

/// Crates whose modules have a table, with the folder of their source.
const TREES: &[Tree] = &[
    Tree { name: "client-core", folder: "crates/client-core/src", modules: MODULES },
    Tree { name: "linux", folder: "crates/linux/src", modules: LINUX },
    Tree { name: "service", folder: "crates/service/src", modules: SERVICE },
    Tree { name: "rust-ota", folder: "daemon/src", modules: DAEMON },
    Tree { name: "server-core", folder: "server/core/src", modules: SERVER_CORE },
    Tree { name: "testserver", folder: "server/testserver/src", modules: TEST_SERVER },
    Tree { name: "rust-ota-server", folder: "server/src", modules: SERVER },
];

/// What the modules of one crate may import of each other.
struct Tree {
    name: &'static str,
    folder: &'static str,
    modules: &'static [ModuleRule],
}

/// A module, and those of its siblings that it may import.
type ModuleRule = (&'static str, &'static [&'static str]);

/// The table as ARCHITECTURE.md shows it.
pub fn table() -> String {
    let mut table = "| package | workspace imports | outside imports |\n| --- | --- | --- |\n".to_owned();
    for rule in PACKAGES {
        table += &format!("| {} | {} | {} |\n", rule.name, list(rule.workspace), list(rule.outside));
    }
    table += &format!("\nTests may use everything in this table, and {}.\n", TESTS_TOO.join(", "));
    for tree in TREES {
        table += &format!("\n| module of {} | imports of its siblings |\n| --- | --- |\n", tree.name);
        for (module, imports) in tree.modules {
            table += &format!("| {module} | {} |\n", list(imports));
        }
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
        let dependencies = package["dependencies"].as_array().unwrap_or(&none);
        findings.extend(unused_in_table(rule, dependencies));
        for dependency in dependencies {
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

/// What the table allows a package and its manifest does not ask for.
fn unused_in_table(rule: &PackageRule, dependencies: &[Value]) -> Vec<String> {
    let asked = |name: &str| {
        dependencies.iter().any(|dependency| dependency["name"] == name && dependency["kind"] != "dev")
    };
    let allowed = rule.workspace.iter().chain(rule.outside).filter(|name| **name != ANY);
    let unused = allowed.filter(|name| !asked(name));
    unused.map(|to| format!("Cargo.toml: {} may import {to} and does not", rule.name)).collect()
}

/// Dependencies of packages that no line of their source names. `read` gives the text of a file of the project.
pub fn unused_dependencies(
    metadata: &Value,
    files: &[PathBuf],
    root: &Path,
    read: &dyn Fn(&Path) -> String,
) -> Vec<String> {
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().unwrap_or(&Vec::new()) {
        let manifest = Path::new(text(&package["manifest_path"]));
        let folder = manifest.strip_prefix(root).unwrap_or(manifest).with_file_name("");
        let is_below = |path: &&PathBuf| {
            let inside = path.strip_prefix(&folder).unwrap_or(Path::new(""));
            inside.extension().is_some_and(|end| end == "rs") && is_of_package(inside)
        };
        let source: String =
            files.iter().filter(is_below).map(|path| source::code_only(&read(path)) + "\n").collect();
        let words: BTreeSet<&str> = source::tokens(&source).into_iter().map(|(_, word)| word).collect();
        for dependency in package["dependencies"].as_array().unwrap_or(&Vec::new()) {
            let name = dependency["rename"].as_str().unwrap_or_else(|| text(&dependency["name"]));
            if !words.contains(&*name.replace('-', "_")) {
                findings.push(format!("{}Cargo.toml: {name} is asked for and not used", shown(&folder)));
            }
        }
    }
    findings
}

/// Whether a file inside of a package's folder is its own, and not of a package below it.
fn is_of_package(inside: &Path) -> bool {
    let first = inside.iter().next().unwrap_or_default();
    ["src", "tests", "benches", "examples", "build.rs"].iter().any(|own| first == *own)
}

fn shown(folder: &Path) -> String {
    match folder.iter().collect::<PathBuf>().display().to_string() {
        root if root.is_empty() => root,
        folder => format!("{folder}/"),
    }
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

/// Modules that no table knows, rows without a module, and imports that a table allows and nobody makes. `read` gives the
/// text of a file of the project.
pub fn module_table_findings(files: &[PathBuf], read: &dyn Fn(&Path) -> String) -> Vec<String> {
    TREES.iter().flat_map(|tree| tree_findings(tree, files, read)).collect()
}

fn tree_findings(tree: &Tree, files: &[PathBuf], read: &dyn Fn(&Path) -> String) -> Vec<String> {
    let folder = tree.folder;
    let edges = tree.edges(files, read);
    let mut findings: Vec<String> =
        tree.circle().map(|circle| format!("{folder}: {circle}")).into_iter().collect();
    for module in edges.keys().filter(|module| tree.allowed(module).is_none()) {
        findings.push(format!("{folder}: module {module} is not in the import table"));
    }
    for (module, allowed) in tree.modules {
        let Some(made) = edges.get(*module) else {
            findings.push(format!("{folder}: {module} is in the import table and is no module"));
            continue;
        };
        for to in allowed.iter().filter(|to| !made.contains(**to)) {
            findings.push(format!("{folder}: {module} may import {to} and does not"));
        }
    }
    findings
}

/// Imports in one file that the table of its crate does not allow.
pub fn module_findings(path: &Path, text: &str) -> Vec<String> {
    TREES.iter().flat_map(|tree| tree.forbidden(path, text)).collect()
}

/// Who imports whom now, as the tables of this file would say it.
pub fn edges(files: &[PathBuf], read: &dyn Fn(&Path) -> String) -> String {
    let mut shown = String::new();
    for tree in TREES {
        shown += &format!("// {}\n", tree.name);
        for (module, imports) in tree.edges(files, read) {
            let imports: Vec<String> = imports.iter().map(|import| format!("{import:?}")).collect();
            shown += &format!("    ({module:?}, &[{}]),\n", imports.join(", "));
        }
    }
    shown
}

impl Tree {
    /// Modules that may import each other in a circle.
    fn circle(&self) -> Option<String> {
        let mut left: Vec<&ModuleRule> = self.modules.iter().collect();
        loop {
            let names: Vec<&str> = left.iter().map(|(module, _)| *module).collect();
            let imported: Vec<&str> = left.iter().flat_map(|(_, imports)| imports.iter().copied()).collect();
            let before = left.len();
            // What imports nothing of the rest, or is imported by nothing of it, is in no circle.
            left.retain(|(module, imports)| {
                imported.contains(module) && imports.iter().any(|import| names.contains(import))
            });
            if left.len() == before {
                break;
            }
        }
        let names: Vec<&str> = left.iter().map(|(module, _)| *module).collect();
        (!names.is_empty()).then(|| format!("a circle of imports among {}", names.join(", ")))
    }

    /// What a module may import; `None` for one that is not in the table.
    fn allowed(&self, module: &str) -> Option<&'static [&'static str]> {
        self.modules.iter().find(|(known, _)| *known == module).map(|(_, imports)| *imports)
    }

    /// Every module, and which others it imports outside of its tests.
    fn edges(&self, files: &[PathBuf], read: &dyn Fn(&Path) -> String) -> BTreeMap<String, BTreeSet<String>> {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for path in files {
            let Some((module, depth)) = self.module_of(path) else { continue };
            let code = source::without_tests(&source::code_only(&read(path)));
            let found = siblings(&code, depth).into_iter().map(|(_, to)| to.to_owned());
            edges.entry(module).or_default().extend(found);
        }
        let modules: BTreeSet<String> = edges.keys().cloned().collect();
        for (module, imports) in &mut edges {
            imports.retain(|to| to != module && modules.contains(to));
        }
        edges
    }

    /// Imports in one file that are not allowed.
    fn forbidden(&self, path: &Path, text: &str) -> Vec<String> {
        let Some((module, depth)) = self.module_of(path) else { return Vec::new() };
        let allowed = self.allowed(&module).unwrap_or_default();
        siblings(&source::without_tests(&source::code_only(text)), depth)
            .into_iter()
            .filter(|(_, to)| *to != module && self.allowed(to).is_some() && !allowed.contains(to))
            .map(|(line, to)| format!("{}:{line}: {module} must not import {to}", path.display()))
            .collect()
    }

    /// The module that `path` belongs to, and how deep its file lies: 1 for the module itself. The root of the crate is no
    /// module.
    fn module_of(&self, path: &Path) -> Option<(String, usize)> {
        if path.extension().is_none_or(|end| end != "rs") {
            return None;
        }
        let inside = path.strip_prefix(self.folder).ok()?.with_extension("");
        let mut names: Vec<String> = inside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        if names.last().is_some_and(|name| name == "mod") {
            names.pop();
        }
        let depth = names.len();
        names.into_iter().next().filter(|name| name != "lib" && name != "main").map(|name| (name, depth))
    }
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
        let said = findings.iter().find(|finding| finding.contains("must not import"));
        assert_eq!(said.map(String::as_str), complaint);
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
    fn what_the_table_allows_and_nobody_asks_for_is_reported() {
        let metadata = json!({ "packages": [{ "name": "rust-ota-http", "dependencies": [] }] });
        let said = "Cargo.toml: rust-ota-http may import ureq and does not";
        assert!(package_findings(&metadata).iter().any(|finding| finding == said));
    }

    #[test]
    fn a_dependency_that_no_line_names_is_reported() {
        let dependencies =
            json!([{ "name": "serde-json" }, { "name": "rust-ota-x", "rename": "x" }, { "name": "log" }]);
        let metadata =
            json!({ "packages": [{ "manifest_path": "/a/b/Cargo.toml", "dependencies": dependencies }] });
        let files = ["b/src/lib.rs", "b/below/src/lib.rs"].map(PathBuf::from);
        let read = |path: &Path| match path.starts_with("b/below") {
            true => "log::info!();".to_owned(),
            false => "use serde_json; use x::y; // log".to_owned(),
        };
        let found = unused_dependencies(&metadata, &files, Path::new("/a"), &read);
        assert_eq!(found, ["b/Cargo.toml: log is asked for and not used"]);
    }

    const TREE: Tree = Tree {
        name: "x",
        folder: "x/src",
        modules: &[
            ("artifact", &[]),
            ("slot", &[]),
            ("boot", &["slot"]),
            ("install", &["artifact", "boot"]),
            ("deploy", &["install"]),
        ],
    };

    fn check_module(path: &str, text: &str, complaints: &[&str]) {
        assert_eq!(TREE.forbidden(Path::new(path), text), complaints);
    }

    #[test]
    fn a_forbidden_module_is_reported_however_it_is_named() {
        let boot = "x/src/boot.rs";
        let complaint = ["x/src/boot.rs:2: boot must not import deploy"];
        check_module(boot, "\nuse crate::deploy::run;", &complaint);
        check_module(boot, "\nuse crate::{slot::Slot, deploy::{self, run}};", &complaint);
        check_module(boot, "\nuse super::deploy;", &complaint);
        check_module(boot, "\nfn f() { crate::deploy::run() }", &complaint);
        check_module(boot, "\nmod tests { use super::super::deploy; }", &complaint);
        let complaint = ["x/src/artifact/tar.rs:1: artifact must not import slot"];
        check_module("x/src/artifact/tar.rs", "use super::super::slot::Slot;", &complaint);
        check_module("x/src/artifact/mod.rs", "use super::artifact::tar;", &[]);
    }

    #[test]
    fn allowed_modules_own_parts_and_comments_are_not() {
        let install = "x/src/install/mod.rs";
        check_module(install, "use crate::{artifact, boot::BootEnv, install::error};", &[]);
        check_module(
            install,
            "// use crate::deploy;\nmod tests { use super::*; }\nuse self::x::deploy;",
            &[],
        );
        check_module("x/src/lib.rs", "pub use crate::deploy::run;", &[]);
        check_module("daemon/src/slot.rs", "use crate::deploy;", &[]);
    }

    #[test]
    fn a_circle_is_reported() {
        let modules: &[ModuleRule] = &[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &[])];
        let tree = Tree { modules, ..TREE };
        assert_eq!(tree.circle().as_deref(), Some("a circle of imports among b, c"));
        assert_eq!(TREE.circle(), None);
    }

    #[test]
    fn a_module_outside_the_table_and_an_import_that_nobody_makes_are_reported() {
        let files = ["artifact", "slot", "boot", "install", "gossip"]
            .map(|name| PathBuf::from(format!("x/src/{name}.rs")));
        let read = |path: &Path| match path.ends_with("boot.rs") {
            true => "use crate::slot;".to_owned(),
            false => "use crate::artifact;\n#[cfg(test)]\nmod tests { use crate::boot; }".to_owned(),
        };
        let said = [
            "x/src: module gossip is not in the import table",
            "x/src: install may import boot and does not",
            "x/src: deploy is in the import table and is no module",
        ];
        assert_eq!(tree_findings(&TREE, &files, &read), said);
    }
}
