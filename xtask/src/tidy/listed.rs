//! Integration tests are linked once a package, from `tests/main.rs`: a file that is not named there is not compiled, and
//! nobody would notice.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::source;

/// Test files that no `tests/main.rs` names. `read` gives the text of a file of the project.
pub fn findings(
    metadata: &Value,
    files: &[PathBuf],
    root: &Path,
    read: &dyn Fn(&Path) -> String,
) -> Vec<String> {
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().unwrap_or(&Vec::new()) {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let manifest = manifest.strip_prefix(root).unwrap_or(manifest);
        let tests = manifest.with_file_name("tests");
        let finds_tests_itself = source::tokens(&read(manifest))
            .windows(3)
            .all(|words| [words[0].1, words[1].1, words[2].1] != ["autotests", "=", "false"]);
        if finds_tests_itself {
            continue;
        }
        let main = tests.join("main.rs");
        let named = modules(&source::code_only(&read(&main)));
        for path in files.iter().filter(|path| path.parent() == Some(&tests) && **path != main) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            if path.extension().is_some_and(|end| end == "rs") && named.iter().all(|known| *known != name) {
                findings.push(format!(
                    "{}: not run: {} has no `mod {name};`",
                    path.display(),
                    main.display()
                ));
            }
        }
    }
    findings
}

/// The names in `mod name;`.
fn modules(code: &str) -> Vec<String> {
    let tokens = source::tokens(code);
    let declared = tokens.windows(3).filter(|words| words[0].1 == "mod" && words[2].1 == ";");
    declared.map(|words| words[1].1.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is said about a package with this manifest and this `tests/main.rs` beside `one.rs` and `two.rs`.
    fn check(manifest: &str, main: &str, complaints: &[&str]) {
        let metadata = json!({ "packages": [{ "manifest_path": "/x/daemon/Cargo.toml" }] });
        let names = ["main.rs", "one.rs", "two.rs", "notes.txt", "common/mod.rs"];
        let mut files: Vec<PathBuf> = names.iter().map(|name| Path::new("daemon/tests").join(name)).collect();
        files.push("daemon/src/three.rs".into());
        let read =
            |path: &Path| if path.ends_with("Cargo.toml") { manifest.to_owned() } else { main.to_owned() };
        assert_eq!(findings(&metadata, &files, Path::new("/x"), &read), complaints);
    }

    #[test]
    fn a_test_file_that_main_does_not_name_is_reported() {
        let manifest = "[package]\nautotests = false\n";
        let complaint = "daemon/tests/two.rs: not run: daemon/tests/main.rs has no `mod two;`";
        check(manifest, "mod common;\nmod one;\n", &[complaint]);
        check(manifest, "mod one;\n// mod two;\n", &[complaint]);
        check(manifest, "mod one;\n#[cfg(unix)]\nmod two;\n", &[]);
    }

    #[test]
    fn where_cargo_looks_for_tests_itself_nothing_is_said() {
        check("[package]\n", "", &[]);
    }
}
