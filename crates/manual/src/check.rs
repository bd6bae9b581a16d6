//! Holds a parser against its description, both ways: what is described is taken, and what is taken is described.
//!
//! What could be taken and is not described is looked for with every letter, and with every word that stands in quotes in
//! the source of the program: an option that the parser knows is among those, whatever way it is written.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::{Argument, Command, Flag, Kind, Program};

/// Given to what may be an option that takes a value.
const VALUES: [&str; 6] = ["1", "a:b", "0:0", "x", "yes", "http://127.0.0.1:1"];

/// How a program reads its command line, for a test.
pub struct Parser<'a> {
    /// Whether these options are taken behind these commands, with everything that the command needs.
    pub takes: &'a dyn Fn(&[&str], &[String]) -> bool,
    /// What is said when this is all that was typed.
    pub says: &'a dyn Fn(&[String]) -> String,
    /// Whether the first word is a command, or prints the help.
    pub knows: &'a dyn Fn(&str) -> bool,
    /// A value for an option that does not take just any.
    pub value: &'a dyn Fn(&Flag) -> Option<String>,
    /// Options that are not tried, since they print.
    pub leaves_out: &'a [&'a str],
}

/// Every difference between the description and the parser, whose source is below `folder`.
///
/// # Errors
/// When the source cannot be read.
pub fn differences(program: &Program, folder: &Path, parser: &Parser<'_>) -> io::Result<Vec<String>> {
    let words = quoted_words(folder)?;
    let mut found = Vec::new();
    for word in &words {
        let is_described = program.command(word).is_some() || program.help_words.contains(&word.as_str());
        if is_described != (parser.knows)(word) {
            found.push(format!("{word} is {}", told(is_described)));
        }
    }
    for command in program.commands().filter(|command| !words.contains(command.name)) {
        found.push(format!("{} does not stand in the source", command.name));
    }
    let mut spellings: BTreeSet<String> = words.iter().map(|word| format!("--{word}")).collect();
    spellings.extend(('a'..='z').chain('A'..='Z').chain('0'..='9').map(|letter| format!("-{letter}")));
    let above = (Vec::new(), program.takes());
    let below = program.all_commands().into_iter().map(|(path, command)| (path, program.taken_by(command)));
    for (path, flags) in [above].into_iter().chain(below) {
        let mut described = BTreeSet::new();
        for flag in &flags {
            for spelling in flag.spellings() {
                if !described.insert(spelling.clone()) {
                    found.push(format!("{} has {spelling} twice", path.join(" ")));
                }
                found.extend(described_is_taken(parser, &path, flag, &spelling));
            }
        }
        for spelling in spellings.difference(&described) {
            let tries = [None].into_iter().chain(VALUES.map(Some));
            let taken = tries.into_iter().find(|value| {
                let words = [spelling.as_str()].into_iter().chain(*value).map(str::to_owned);
                (parser.takes)(&path, &words.collect::<Vec<_>>())
            });
            found.extend(taken.map(|_| format!("{} {spelling} is {}", path.join(" "), told(false))));
        }
    }
    Ok(found)
}

/// What a command needs besides options, as somebody may type it.
pub fn operands(command: &Command) -> Vec<String> {
    let needed = command.arguments.iter().filter(|argument| argument.is_needed);
    let word = |argument: &Argument| match argument.kind {
        Kind::Choice(words) => words.first().copied().unwrap_or_default().to_owned(),
        Kind::Text | Kind::File | Kind::Folder | Kind::Artifact => "x".to_owned(),
    };
    needed.map(word).collect()
}

fn told(is_described: bool) -> &'static str {
    if is_described {
        "described, and the parser does not take it"
    } else {
        "taken by the parser, and not described"
    }
}

fn described_is_taken(parser: &Parser<'_>, path: &[&str], flag: &Flag, spelling: &str) -> Vec<String> {
    if parser.leaves_out.contains(&flag.long) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let place = path.join(" ");
    let Some(value) = flag.value else {
        if !(parser.takes)(path, &[spelling.to_owned()]) {
            found.push(format!("{place} {spelling} is {}", told(true)));
        }
        return found;
    };
    let given = (parser.value)(flag);
    let values = match (given, value.kind) {
        (Some(given), _) => vec![given],
        (None, Kind::Choice(choices)) => choices.iter().map(|choice| (*choice).to_owned()).collect(),
        (None, Kind::Text | Kind::File | Kind::Folder | Kind::Artifact) => {
            vec![an_example(value.name).to_owned()]
        }
    };
    for value in values {
        let once = [spelling.to_owned(), value.clone()];
        let twice = [&once[..], &once[..]].concat();
        if !(parser.takes)(path, if flag.is_repeatable { &twice } else { &once }) {
            found.push(format!("{place} {spelling} {value} is {}", told(true)));
        }
    }
    let words: Vec<String> =
        path.iter().map(|word| (*word).to_owned()).chain([spelling.to_owned()]).collect();
    let said = (parser.says)(&words);
    if !said.contains("missing argument") {
        found.push(format!("{place} {spelling} has no value, and that is said: {said}"));
    }
    found
}

/// A value with the form that its name tells.
fn an_example(name: &str) -> &'static str {
    match name {
        "DAYS" | "N" | "SECONDS" => "1",
        "SIZE" => "5MB",
        "MODE" => "0644",
        "UID:GID" => "0:0",
        "KEY:VALUE" | "NAME:PASSWORD" => "a:b",
        "ADDRESS:PORT" => "127.0.0.1:0",
        "URL" | "URI" => "http://127.0.0.1:1",
        _ => "x",
    }
}

/// Every piece of a line between quotes that could be an option or a command.
fn quoted_words(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut words = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            words.append(&mut quoted_words(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path)?;
            words.extend(
                text.lines()
                    .flat_map(|line| line.split('"'))
                    .filter(|piece| is_word(piece))
                    .map(str::to_owned),
            );
        }
    }
    Ok(words)
}

fn is_word(piece: &str) -> bool {
    piece.starts_with(|first: char| first.is_ascii_lowercase())
        && piece.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
