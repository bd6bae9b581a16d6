//! `cargo xtask house`: the size of the house, counted in its text. Lines of code by crate, the longest functions, and
//! items that are public and have no user outside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use xtask::options::Options;
use xtask::{Outcome, workspace};

use crate::source;

/// What `--help` prints.
pub const HELP: &str = "\
Usage: cargo xtask house [--root DIRECTORY] [--functions N]

Counts, in the text of what ships: lines of code by crate without comments, blank lines and tests; the longest functions
(N of them, default 15), those that say they are a listing apart; names that are `pub` in the engine and that nobody
outside of it, nor another public declaration, mentions. --root counts another tree.
";

/// The crate whose size is promised.
const ENGINE: &str = "crates/client-core";

/// Folders whose Rust ships.
const SHIPPED: &[&str] = &["crates", "daemon", "tools", "server"];

/// A comment with this word above a function says that it is one long list, which no division would make clearer.
const LISTING: &str = "listing";

/// A Rust file that ships, without its tests.
struct File {
    path: PathBuf,
    /// The text as it is.
    text: String,
    /// The same lines without comments and literals, up to the tests.
    code: String,
}

/// A function with its length, its first line and its last included.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    lines: usize,
    place: String,
    is_listing: bool,
}

/// Counts and prints.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let root = options.value("--root")?.map_or_else(workspace::root, PathBuf::from);
    let count = usize::try_from(options.count("--functions", 15)?).unwrap_or(usize::MAX);
    options.finish()?;
    let files = shipped(&root)?;
    print_lines(&files);
    print_functions(&files, count);
    print_unused(&root, &files)
}

fn shipped(root: &Path) -> Outcome<Vec<File>> {
    let mut files = Vec::new();
    for path in workspace::files_of(root)? {
        if ships(&path) {
            let text = workspace::read(&root.join(&path))?;
            let code = source::without_tests(&source::code_only(&text));
            files.push(File { path, text, code });
        }
    }
    Ok(files)
}

/// Whether the file at `path` is Rust that ships and no test.
fn ships(path: &Path) -> bool {
    let name = path.to_string_lossy();
    let is_test = ["/tests/", "/tests.rs", "/test_support.rs", "/testkit/", "/testserver/", "/examples/"];
    SHIPPED.iter().any(|folder| path.starts_with(folder))
        && name.ends_with(".rs")
        && !is_test.iter().any(|part| name.contains(part))
}

/// The folder of the crate that `path` belongs to.
fn crate_of(path: &Path) -> String {
    let folders = path.iter().take_while(|part| *part != "src");
    folders.collect::<PathBuf>().display().to_string()
}

fn print_lines(files: &[File]) {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        let code = file.code.lines().filter(|line| !line.trim().is_empty()).count();
        *lines.entry(crate_of(&file.path)).or_default() += code;
    }
    println!("Lines of code\n");
    for (name, count) in &lines {
        println!("  {count:>6}  {name}");
    }
    println!("  {:>6}  all", lines.values().sum::<usize>());
}

fn print_functions(files: &[File], count: usize) {
    let mut functions: Vec<Function> = files.iter().flat_map(functions).collect();
    functions.sort();
    let all = functions.len().max(1);
    let at = |share: usize| functions.get(all * share / 100).map_or(0, |function| function.lines);
    println!("\nFunctions: {} of them, half up to {} lines, nine in ten up to {}", all, at(50), at(90));
    for (title, listing) in [("The longest", false), ("Listings", true)] {
        println!("\n{title}\n");
        for function in functions.iter().rev().filter(|function| function.is_listing == listing).take(count) {
            println!("  {:>6}  {}", function.lines, function.place);
        }
    }
}

/// The functions of a file that have a body.
fn functions(file: &File) -> Vec<Function> {
    let tokens = source::tokens(&file.code);
    let text: Vec<&str> = file.text.lines().collect();
    let mut found = Vec::new();
    for (at, (line, word)) in tokens.iter().enumerate() {
        let Some((_, name)) = tokens.get(at + 1).filter(|_| *word == "fn") else { continue };
        // A function type has no name.
        if *name == "(" {
            continue;
        }
        let Some(last) = end_of_body(&tokens[at..]) else { continue };
        let above = text[..line - 1].iter().rev().take_while(|line| is_comment_or_attribute(line));
        found.push(Function {
            lines: last - line + 1,
            place: format!("{}:{line} {name}", file.path.display()),
            is_listing: above.into_iter().any(|line| source::has_word(line, LISTING)),
        });
    }
    found
}

fn is_comment_or_attribute(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") || line.starts_with('#')
}

/// The line on which the body of the function at the start of `tokens` ends; `None` when it has none.
fn end_of_body(tokens: &[(usize, &str)]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut brackets = 0_usize;
    for (line, word) in tokens {
        match *word {
            // `;` inside of brackets is the length of an array.
            ";" if depth == 0 && brackets == 0 => return None,
            "[" | "(" if depth == 0 => brackets += 1,
            "]" | ")" if depth == 0 => brackets = brackets.saturating_sub(1),
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(*line);
                }
            }
            _ => {}
        }
    }
    None
}

/// Items of the engine that are public, and those of them that nobody outside of it names: no other crate, no test beside
/// it, and no declaration of another public item, which could not be used without them.
fn print_unused(root: &Path, files: &[File]) -> Outcome {
    let engine: Vec<&File> = files.iter().filter(|file| crate_of(&file.path) == ENGINE).collect();
    let mut outside = String::new();
    for path in workspace::files_of(root)? {
        let is_inside = path.starts_with(Path::new(ENGINE).join("src"));
        if path.extension().is_some_and(|end| end == "rs") && !is_inside {
            outside += &source::code_only(&workspace::read(&root.join(&path))?);
            outside.push('\n');
        }
    }
    let declared: String = engine.iter().map(|file| declarations(&file.code)).collect();
    let used: BTreeSet<&str> = source::tokens(&outside).into_iter().map(|(_, word)| word).collect();
    let mentioned = mentions(&declared);
    let mut public = 0;
    let mut unused = Vec::new();
    for file in engine {
        for (line, kind, name) in public_items(&file.code) {
            public += 1;
            // Its own declaration is one mention.
            let is_mentioned = kind != "fn" && mentioned.get(name).is_some_and(|count| *count > 1);
            if !used.contains(name) && !is_mentioned {
                unused.push(format!("{}:{line} {kind} {name}", file.path.display()));
            }
        }
    }
    println!("\nPublic items of {ENGINE}: {public}, without a user outside: {}\n", unused.len());
    for item in unused {
        println!("  {item}");
    }
    Ok(())
}

/// What others see of a file: lines that are public, and what stands in traits and in variants.
fn declarations(code: &str) -> String {
    let is_seen = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("pub ")
            || line.starts_with("fn ")
            || line.starts_with("impl")
            || line.starts_with(char::is_uppercase)
            || line.contains(": ")
            || line.starts_with(") -> ")
    };
    code.lines().filter(is_seen).map(|line| format!("{line}\n")).collect()
}

/// How often each word stands in `text`.
fn mentions(text: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (_, word) in source::tokens(text) {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// Line, kind and name of what is `pub` without a bound.
fn public_items(code: &str) -> Vec<(usize, &str, &str)> {
    const KINDS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod"];
    let tokens = source::tokens(code);
    let word = |at: usize| tokens.get(at).map_or("", |(_, word)| *word);
    let mut found = Vec::new();
    for (at, (line, _)) in tokens.iter().enumerate().filter(|(_, (_, word))| *word == "pub") {
        // `pub const fn`, `pub unsafe fn`.
        let kind = if word(at + 2) == "fn" { at + 2 } else { at + 1 };
        if KINDS.contains(&word(kind)) {
            found.push((*line, word(kind), word(kind + 1)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        let code = source::without_tests(&source::code_only(text));
        File { path: "crates/a/src/b.rs".into(), text: text.into(), code }
    }

    #[test]
    fn functions_are_measured_from_their_first_line_to_their_last() {
        let text = "fn one() {}\ntrait T {\n    fn none(&self, x: [u8; 4]);\n    fn two(&self) -> fn() {\n        if a { b }\n    }\n}\n";
        let found: Vec<(usize, String)> =
            functions(&file(text)).into_iter().map(|function| (function.lines, function.place)).collect();
        assert_eq!(
            found,
            [(1, "crates/a/src/b.rs:1 one".to_owned()), (3, "crates/a/src/b.rs:4 two".to_owned())]
        );
    }

    #[test]
    fn a_listing_says_so_above_it() {
        let text = "/// A listing of all.\n#[rustfmt::skip]\nfn all() {\n}\n\nfn other() {}\n";
        let found: Vec<bool> = functions(&file(text)).iter().map(|function| function.is_listing).collect();
        assert_eq!(found, [true, false]);
    }

    #[test]
    fn tests_are_not_counted() {
        let text = "fn one() {}\n\n#[cfg(test)]\nmod tests {\n    fn two() {}\n}\n";
        assert_eq!(functions(&file(text)).len(), 1);
        let text = "#[cfg(test)]\nfn helper() {}\nfn one() {}\n";
        assert_eq!(functions(&file(text)).len(), 2);
        assert!(!ships(Path::new("daemon/tests/main.rs")) && !ships(Path::new("crates/testkit/src/lib.rs")));
        assert!(ships(Path::new("daemon/src/main.rs")) && !ships(Path::new("xtask/src/main.rs")));
    }

    #[test]
    fn public_items_are_those_that_other_crates_see() {
        let code = "pub fn a() {}\npub(crate) fn b() {}\npub const fn c() {}\npub struct D {\n    pub e: u8,\n}\nfn f() {}\n";
        let found: Vec<(&str, &str)> =
            public_items(code).into_iter().map(|(_, kind, name)| (kind, name)).collect();
        assert_eq!(found, [("fn", "a"), ("fn", "c"), ("struct", "D")]);
    }
}
