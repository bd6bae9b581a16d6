//! What `--help` prints.

use crate::{Block, Command, Flag, Program, Shown};

/// Help for the whole program.
pub fn of_program(program: &Program) -> String {
    let mut text = String::new();
    if program.is_titled {
        text += &format!("{}: {}\n", program.name, program.about);
        if !program.usage.is_empty() {
            text.push('\n');
        }
    }
    text += &usage(program, program.usage);
    for group in program.groups {
        text.push('\n');
        if !group.heading.is_empty() {
            text += &format!("{}:\n", group.heading);
        }
        let mut rows: Vec<(String, &str)> =
            group.commands.iter().flat_map(|command| listed(command)).collect();
        if group.is_spelled {
            let spelled = group.commands.iter().map(|command| (usage_of(command)[0].clone(), command.about));
            let more = group.more.iter().map(|(words, about)| ((*words).to_owned(), *about));
            rows = spelled
                .chain(more)
                .map(|(words, about)| (format!("{} {words}", program.name), about))
                .collect();
        }
        let widest = rows.iter().map(|(words, _)| words.len() + 4).max().unwrap_or(0);
        let column = if group.is_spelled { widest } else { program.commands_column };
        rows.iter().for_each(|(words, about)| text += &row(words, about, column));
    }
    let options = shown(program.options);
    if !options.is_empty() {
        text += &format!("\n{}:\n", program.options_heading);
        for flag in options {
            let indent = if program.is_aligned && flag.short.is_none() { "    " } else { "" };
            text += &row(&format!("{indent}{}", spelled(&flag)), &flag.explained(), program.options_column);
        }
    }
    if program.tells_exit_codes {
        let codes = program.exit_codes.iter().map(|(code, meaning)| format!("{code} {meaning}"));
        text += &format!("\nExit codes: {}.\n", codes.collect::<Vec<_>>().join("; "));
    }
    if !program.closing.is_empty() {
        text += &format!("\n{}\n", program.closing);
    }
    text
}

/// Help for one command of it.
pub fn of_command(program: &Program, command: &Command) -> String {
    let lines = usage_of(command);
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut text = usage(program, &lines);
    let mut before = None;
    for block in command.body {
        let is_list = matches!(block, Block::Options(_) | Block::Shown(_) | Block::Rows(_));
        if !(is_list && before == Some(true)) {
            text.push('\n');
        }
        before = Some(is_list);
        let mut list = |flags: &[Flag]| {
            shown(flags)
                .iter()
                .for_each(|flag| text += &row(&spelled(flag), &flag.explained(), command.column));
        };
        match block {
            Block::Options(flags) | Block::Shown(flags) => list(flags),
            Block::Titled(heading, flags) => {
                text += &format!("{heading}:\n");
                shown(flags)
                    .iter()
                    .for_each(|flag| text += &row(&spelled(flag), &flag.explained(), command.column));
            }
            Block::Rows(rows) => {
                rows.iter().for_each(|(word, about)| text += &row(word, about, command.column))
            }
            Block::Text(words) => text += &format!("{words}\n"),
            Block::About("") => text += &format!("{}\n", command.about),
            Block::About(more) => text += &format!("{}\n{more}\n", command.about),
            Block::Example(line) => text += &format!("  {line}\n"),
        }
    }
    text
}

/// All of it as source: a constant `PROGRAM` and one for each command, such as `SHOW_ARTIFACT`. Where the program that
/// prints them has to be small, they are made while it is built: neither a description nor this code is in it then.
pub fn as_source(program: &Program) -> String {
    let constant = |name: &str, text: &str| format!("pub const {name}: &str = {text:?};\n");
    let mut source = constant("PROGRAM", &of_program(program));
    for (path, command) in program.all_commands() {
        let name = path.join("_").replace('-', "_").to_uppercase();
        source += &constant(&name, &of_command(program, command));
    }
    source
}

/// What may follow the program's name.
pub(crate) fn usage_of(command: &Command) -> Vec<String> {
    if !command.usage.is_empty() {
        return command.usage.iter().map(|line| (*line).to_owned()).collect();
    }
    vec![format!("{} [OPTION]...", with_words(command.name, command.words))]
}

/// An option as the help shows it: `-c, --config FILE`.
pub(crate) fn spelled(flag: &Flag) -> String {
    let letter = flag.short.map(|letter| format!("-{letter}, ")).unwrap_or_default();
    let value = flag.value.map(|value| format!(" {}", value.name)).unwrap_or_default();
    format!("{letter}--{}{value}", flag.long)
}

fn usage(program: &Program, lines: &[&str]) -> String {
    let begins = program.usage_begins;
    let indent = " ".repeat(begins.len());
    let line = |(at, line): (usize, &&str)| {
        let start = if at == 0 { begins } else { &indent };
        format!("{start}{} {line}\n", program.name)
    };
    lines.iter().enumerate().map(line).collect()
}

/// A command in the list of all; one with commands below it is listed by those.
fn listed(command: &Command) -> Vec<(String, &str)> {
    if command.commands.is_empty() {
        return vec![(with_words(command.name, command.words), command.about)];
    }
    command.commands.iter().map(|below| (format!("{} {}", command.name, below.name), below.about)).collect()
}

fn with_words(name: &str, words: &str) -> String {
    if words.is_empty() { name.to_owned() } else { format!("{name} {words}") }
}

fn shown(flags: &[Flag]) -> Vec<Flag> {
    flags.iter().filter(|flag| flag.shown == Shown::Everywhere).copied().collect()
}

/// Words, and what they mean from `column` on.
fn row(words: &str, meaning: &str, column: usize) -> String {
    let indent = " ".repeat(column);
    let meaning = meaning.replace('\n', &format!("\n{indent}"));
    if words.len() + 4 > column {
        return format!("  {words}\n{indent}{meaning}\n");
    }
    format!("  {words:width$}{meaning}\n", width = column - 2)
}
