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

use crate::{Outcome, crates_inc, workspace};

/// A part of a page that is made of something else: where it is, and what it has to be.
struct Made {
    page: &'static str,
    section: &'static str,
    text: fn() -> String,
}

const MADE: [Made; 2] = [
    Made { page: "ARCHITECTURE.md", section: "imports", text: imports::table },
    Made { page: "docs/operating-the-server.md", section: "options", text: options_of_serve },
];

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
        write_made()?;
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

fn write_made() -> Outcome {
    for Made { page, section, text } in MADE {
        let path = workspace::root().join(page);
        let page = markdown::with_section(&workspace::read(&path)?, section, &text())?;
        workspace::write(&path, page)?;
    }
    Ok(())
}

/// What is wrong with a page that should have this part.
fn made_finding(made: &Made, page: &str) -> Outcome<Option<String>> {
    let Made { page: path, section, text } = made;
    let is_that = markdown::section(page, section)? == text().trim_end();
    Ok((!is_that).then(|| format!("{path}: {section} is not what it is made of; cargo xtask tidy --write")))
}

/// Every option of `rust-ota-server serve`, from the description that its `--help` is made of.
fn options_of_serve() -> String {
    use ::manual::{pages::markdown::options, rust_ota_server::PROGRAM};
    PROGRAM.command("serve").map(|serve| options(&PROGRAM, serve)).unwrap_or_default()
}

fn findings(files: &[PathBuf]) -> Outcome<Vec<String>> {
    let root = workspace::root();
    let metadata = workspace::metadata()?;
    let mut findings = imports::package_findings(&metadata);
    findings.extend(imports::unused_dependencies(&metadata, files, &root, &text_of));
    findings.extend(listed::findings(&metadata, files, &root, &text_of));
    findings.extend(imports::module_table_findings(files, &text_of));
    findings.extend(crates_inc::findings(files, &metadata)?);
    let claims = claims::Claims::of(&metadata, files, &text_of);
    for made in &MADE {
        findings.extend(made_finding(made, &workspace::read(&root.join(made.page))?)?);
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
        if has_extension(path, "js") {
            findings.extend(rules::page_findings(path, &text));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_page_that_is_not_what_it_is_made_of_is_told() {
        let made = Made { page: "x.md", section: "table", text: || "| a |\n".to_owned() };
        let page = |inside: &str| format!("# x\n<!-- table -->\n\n{inside}\n\n<!-- /table -->\n");
        assert_eq!(made_finding(&made, &page("| a |")), Ok(None));
        let found = made_finding(&made, &page("| b |")).unwrap().unwrap();
        assert!(found.contains("x.md") && found.contains("tidy --write"), "{found}");
        assert!(made_finding(&made, "# x\n").is_err());
    }
}
