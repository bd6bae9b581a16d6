//! `cargo xtask tidy`: the import table and the house rules, checked.
//!
//! It reads `cargo metadata` and text. It does not compile; what the compiler and clippy can check, they check.

mod claims;
mod imports;
mod links;
mod listed;
mod rules;
mod words;

use std::path::{Path, PathBuf};

use crate::options::Options;
use xtask::markdown;

use crate::{Outcome, workspace};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const SECTION: &str = "imports";

/// Checks everything and fails with the list of what is wrong.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let write = options.flag("--write");
    let edges = options.flag("--edges");
    options.finish()?;
    if edges {
        print!("{}", imports::edges(&workspace::files()?, &text_of));
        return Ok(());
    }
    if write {
        write_table()?;
    }
    let files = workspace::files()?;
    let findings = findings(&files)?;
    if findings.is_empty() {
        println!("tidy: {} files, nothing to say", files.len());
        return Ok(());
    }
    for finding in &findings {
        println!("{finding}");
    }
    Err(format!("tidy has {} complaint(s)", findings.len()))
}

fn write_table() -> Outcome {
    let path = workspace::root().join(ARCHITECTURE);
    let page = markdown::with_section(&workspace::read(&path)?, SECTION, &imports::table())?;
    workspace::write(&path, page)
}

fn findings(files: &[PathBuf]) -> Outcome<Vec<String>> {
    let root = workspace::root();
    let metadata = workspace::metadata()?;
    let mut findings = imports::package_findings(&metadata);
    findings.extend(imports::unused_dependencies(&metadata, files, &root, &text_of));
    findings.extend(listed::findings(&metadata, files, &root, &text_of));
    findings.extend(imports::module_table_findings(files, &text_of));
    let claims = claims::Claims::of(&metadata, files, &text_of);
    let page = workspace::read(&root.join(ARCHITECTURE))?;
    if markdown::section(&page, SECTION)? != imports::table().trim_end() {
        findings.push(format!(
            "{ARCHITECTURE}: the import table is not the checked one; cargo xtask tidy --write"
        ));
    }
    for path in files {
        // Images and other binary files have no text to look at.
        let Ok(bytes) = std::fs::read(root.join(path)) else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        findings.extend(rules::text_findings(path, &text));
        findings.extend(claims.findings(path, &text));
        if has_extension(path, "rs") {
            findings.extend(rules::source_findings(path, &text));
            findings.extend(words::findings(path, &text));
            findings.extend(imports::module_findings(path, &text));
        }
        if has_extension(path, "md") {
            findings.extend(links::findings(path, &text, &|target| root.join(target).exists()));
        }
    }
    Ok(findings)
}

/// The text of a file of the project; empty when it has none.
fn text_of(path: &Path) -> String {
    std::fs::read_to_string(workspace::root().join(path)).unwrap_or_default()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|end| end == extension)
}
