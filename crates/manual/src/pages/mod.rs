//! What is installed beside the programs: man pages, and completions for three shells; and tables for the documentation.

mod bash;
mod fish;
pub mod markdown;
mod roff;
mod zsh;

use crate::{Argument, Command, Flag, Kind, PROGRAMS, Program, Shown};

/// A file, and where it goes.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    /// The program that it is about.
    pub program: &'static str,
    /// Where it goes when all of a kind are in one folder: `man/rust-ota.8`.
    pub path: String,
    /// Where a package has it: `usr/share/man/man8/rust-ota.8`.
    pub installed: String,
    /// What is in it.
    pub text: String,
}

/// The files of all programs; `version` is on the man pages.
pub fn files(version: &str) -> Vec<File> {
    let of_program = |program: &Program| {
        let Program { name, page, .. } = program;
        let section = page.section;
        let completion = |shell: &str, folder: &str, file: String, text: String| File {
            program: name,
            path: format!("completions/{shell}/{file}"),
            installed: format!("usr/share/{folder}/{file}"),
            text,
        };
        [
            File {
                program: name,
                path: format!("man/{name}.{section}"),
                installed: format!("usr/share/man/man{section}/{name}.{section}"),
                text: roff::page(program, version),
            },
            completion("bash", "bash-completion/completions", (*name).to_owned(), bash::completion(program)),
            completion("zsh", "zsh/vendor-completions", format!("_{name}"), zsh::completion(program)),
            completion(
                "fish",
                "fish/vendor_completions.d",
                format!("{name}.fish"),
                fish::completion(program),
            ),
        ]
    };
    PROGRAMS.into_iter().flat_map(of_program).collect()
}

/// A place on the command line: behind no command, or behind one.
struct Place {
    /// The words that lead to it, with blanks between them; empty before the command.
    path: String,
    /// Commands that may come next, with what they do.
    commands: Vec<(&'static str, &'static str)>,
    flags: Vec<Flag>,
    arguments: &'static [Argument],
}

/// Every place of a program, the one before the command first.
fn places(program: &Program) -> Vec<Place> {
    let named = |command: &Command| (command.name, command.about);
    let told = |flags: Vec<Flag>| flags.into_iter().filter(|flag| flag.shown == Shown::Everywhere).collect();
    let mut places = vec![Place {
        path: String::new(),
        commands: program.commands().map(named).collect(),
        flags: told(program.takes()),
        arguments: &[],
    }];
    places.extend(program.all_commands().into_iter().map(|(path, command)| Place {
        path: path.join(" "),
        commands: command.commands.iter().map(named).collect(),
        flags: told(program.taken_by(command)),
        arguments: command.arguments,
    }));
    places
}

/// A word for a shell function: `_rust_ota`.
fn function(program: &Program) -> String {
    format!("_{}", program.name.replace('-', "_"))
}

/// What an option does, in one line without an end: as much of it as a menu has room for.
fn summary(flag: &Flag) -> String {
    let text = flag.explained().replace('\n', " ").replace('`', "");
    let end = ["; ", ". ", ", one of "].iter().filter_map(|end| text.find(end)).min();
    text[..end.unwrap_or(text.len())].to_owned()
}

/// Between single quotes, as every shell but fish reads it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// What can follow an option or stand as an argument, for a shell that asks with a word for each.
fn choices(kind: Kind) -> Option<&'static [&'static str]> {
    match kind {
        Kind::Choice(choices) => Some(choices),
        Kind::Text | Kind::File | Kind::Folder | Kind::Artifact => None,
    }
}
