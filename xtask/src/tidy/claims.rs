//! What documents and comments say is there: files, packages, crates with their modules, chapters of a specification.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::source;

/// Folders whose names make a word with a slash in it a path of this project.
const FOLDERS: &[&str] = &[
    "boot/",
    "buildroot/",
    "crates/",
    "daemon/",
    "docs/",
    "findings/",
    "fuzz/",
    "packaging/",
    "server/",
    "tests/",
    "tools/",
    "xtask/",
    "yocto/",
];

/// Pages about what was, or about what other projects have.
const HISTORY: &[&str] = &["CHANGELOG.md"];

/// The checks themselves, whose examples are made up.
const EXAMPLES: &str = "xtask/src/tidy";

/// What there is to be named.
pub struct Claims {
    /// Files and folders.
    paths: BTreeSet<PathBuf>,
    packages: BTreeSet<String>,
    /// The words in the source of each crate, by the crate's name in code.
    words: BTreeMap<String, BTreeSet<String>>,
}

impl Claims {
    /// Looks at the project once. `read` gives the text of one of its files.
    pub fn of(metadata: &Value, files: &[PathBuf], read: &dyn Fn(&Path) -> String) -> Claims {
        let mut claims = Claims { paths: BTreeSet::new(), packages: BTreeSet::new(), words: BTreeMap::new() };
        for path in files {
            claims.paths.extend(path.ancestors().map(Path::to_path_buf));
        }
        for package in metadata["packages"].as_array().unwrap_or(&Vec::new()) {
            claims.packages.insert(package["name"].as_str().unwrap_or_default().to_owned());
        }
        for path in files.iter().filter(|path| path.extension().is_some_and(|end| end == "rs")) {
            let Some(name) = crate_of(path) else { continue };
            let code = source::code_only(&read(path));
            let words = source::tokens(&code).into_iter().map(|(_, word)| word.to_owned());
            let known = claims.words.entry(name).or_default();
            known.extend(words);
            known.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
        claims
    }

    /// What the text at `path` names and nobody finds: in the whole of a page, in the comments of source.
    pub fn findings(&self, path: &Path, text: &str) -> Vec<String> {
        let is_page = path.extension().is_some_and(|end| end == "md");
        let is_source = path.extension().is_some_and(|end| end == "rs");
        if !(is_page || is_source)
            || HISTORY.iter().any(|page| path == Path::new(page))
            || path.starts_with(EXAMPLES)
        {
            return Vec::new();
        }
        let mut findings = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let claimed = if is_page { line } else { comment_of(line) };
            for complaint in self.complaints(claimed, is_source) {
                findings.push(format!("{}:{}: {complaint}", path.display(), index + 1));
            }
        }
        findings
    }

    fn complaints(&self, line: &str, is_source: bool) -> Vec<String> {
        let mut complaints = Vec::new();
        for word in words_of(line) {
            if FOLDERS.iter().any(|folder| word.starts_with(folder)) && !self.is_there(word) {
                complaints.push(format!("{word} is not there"));
            }
            if let Some((name, rest)) = word.split_once("::") {
                let missing = self.words.get(&name.replace('-', "_")).filter(|words| !has_all(words, rest));
                complaints.extend(missing.map(|_| format!("{word} is not there")));
            }
        }
        complaints.extend(self.missing_package(line));
        if is_source && cites_a_number(line) {
            complaints.push("cite a page of docs/spec, which is here, instead of a number".to_owned());
        }
        complaints
    }

    /// Whether `word` names a file or folder, perhaps with a pattern, a line or the name of something inside.
    fn is_there(&self, word: &str) -> bool {
        let plain = word.split(['*', '{', '<', '$', ':', '#']).next().unwrap_or_default();
        let plain = plain.trim_end_matches('.');
        if plain.len() < word.trim_end_matches('.').len() && !word[plain.len()..].starts_with([':', '#']) {
            // A pattern: its fixed beginning has to lead somewhere.
            let folder = plain.rsplit_once('/').map_or("", |(folder, _)| folder);
            return self.paths.contains(Path::new(folder));
        }
        let path = Path::new(plain.trim_end_matches('/'));
        // What is named without its ending may be a module, and what begins like a folder of the root may lie in a package.
        let module = path.with_extension("rs");
        self.paths.contains(path)
            || self.paths.contains(&module)
            || self.paths.iter().any(|known| known.ends_with(path))
    }

    /// The package behind `-p` or `--package` of a command of cargo.
    fn missing_package(&self, line: &str) -> Option<String> {
        let words: Vec<&str> = line.split([' ', '`']).collect();
        let at = words.iter().position(|word| *word == "cargo")?;
        let flag = words[at..].iter().position(|word| ["-p", "--package"].contains(word))?;
        let name = words.get(at + flag + 1)?;
        let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '_');
        (is_name && !self.packages.contains(*name)).then(|| format!("there is no package {name}"))
    }
}

/// The name that code gives to the crate of the source file at `path`.
fn crate_of(path: &Path) -> Option<String> {
    let folder = path.ancestors().find(|folder| folder.ends_with("src"))?.parent()?;
    let name = match folder.to_str()? {
        "daemon" => "rust_ota".to_owned(),
        "server" => "rust_ota_server".to_owned(),
        "server/core" => "server_core".to_owned(),
        "tools/artifact" => "rust_ota_artifact".to_owned(),
        _ => folder.file_name()?.to_string_lossy().replace('-', "_"),
    };
    Some(name)
}

/// Whether every part of a path behind a crate's name stands in its source.
fn has_all(words: &BTreeSet<String>, rest: &str) -> bool {
    rest.split("::").map(name_at_the_start).filter(|name| !name.is_empty()).all(|name| words.contains(name))
}

fn name_at_the_start(text: &str) -> &str {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default()
}

/// The words of a line that may be paths: without quotes, brackets and the sign at their end.
fn words_of(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| c.is_whitespace() || "`\"'()[],;|".contains(c))
        .map(|word| word.trim_end_matches(['.', ':', '!', '?']))
}

/// The comment of a line of source; empty when it has none.
fn comment_of(line: &str) -> &str {
    let line = line.trim_start();
    if line.starts_with("//") { line } else { "" }
}

/// Whether a comment cites a chapter by its number, which leads nowhere here.
fn cites_a_number(comment: &str) -> bool {
    comment.split("specification ").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(path: &str, text: &str, complaints: &[&str]) {
        let files: Vec<PathBuf> =
            ["crates/a-b/src/lib.rs", "crates/a-b/src/room.rs", "docs/page.md"].map(PathBuf::from).into();
        let metadata = json!({ "packages": [{ "name": "ours" }] });
        let claims = Claims::of(&metadata, &files, &|_| "pub mod room;\nstruct Thing;".to_owned());
        assert_eq!(claims.findings(Path::new(path), text), complaints);
    }

    #[test]
    fn a_file_that_is_not_there_is_reported() {
        check("docs/page.md", "see `docs/gone.md`.", &["docs/page.md:1: docs/gone.md is not there"]);
        check("docs/page.md", "see `docs/page.md` and crates/a-b/src/*.rs, crates/a-b/src/room.rs:12", &[]);
        check("a.rs", "x(); // docs/gone.md\n// docs/gone.md", &["a.rs:2: docs/gone.md is not there"]);
        check("CHANGELOG.md", "crates/gone", &[]);
    }

    #[test]
    fn a_name_that_a_crate_does_not_have_is_reported() {
        check(
            "docs/page.md",
            "`a-b::room::Thing` and `a_b::Gone`",
            &["docs/page.md:1: a_b::Gone is not there"],
        );
        check("docs/page.md", "`other::Thing`", &[]);
    }

    #[test]
    fn a_package_that_is_not_there_is_reported() {
        check(
            "docs/page.md",
            "    cargo test -p gone --test all",
            &["docs/page.md:1: there is no package gone"],
        );
        check("docs/page.md", "`cargo test --package ours`, mkdir -p x", &[]);
    }

    #[test]
    fn a_specification_is_not_cited_by_number() {
        check(
            "a.rs",
            "// (specification 4.4)",
            &["a.rs:1: cite a page of docs/spec, which is here, instead of a number"],
        );
    }
}
