//! Man pages, in the language of the macros `man`.

use crate::help::{spelled, usage_of};
use crate::{Block, Command, Flag, Group, Kind, Place, Program, Shown, Value};

/// The page of a program with all its commands.
pub(super) fn page(program: &Program, version: &str) -> String {
    let page = &program.page;
    let title = program.name.to_uppercase();
    let mut text =
        format!(".TH {} {} \"\" \"rust-ota {version}\" \"rust-ota\"\n", escaped(&title), page.section);
    // Options and paths are copied: no word is divided, and no line is stretched.
    text += ".nh\n.ad l\n";
    section(&mut text, "NAME");
    text += &format!("{} \\- {}\n", escaped(program.name), escaped(program.about));
    section(&mut text, "SYNOPSIS");
    let usage = if program.usage.is_empty() { &["COMMAND [OPTION]..."] } else { program.usage };
    synopsis(&mut text, program, usage.iter().map(|line| (*line).to_owned()));
    section(&mut text, "DESCRIPTION");
    page.description.iter().for_each(|words| paragraph(&mut text, words));
    if !program.closing.is_empty() {
        paragraph(&mut text, program.closing);
    }
    section(&mut text, "OPTIONS");
    if program.groups.iter().any(|group| !group.commands.is_empty()) {
        paragraph(&mut text, "These stand before the command.");
    }
    program.options.iter().for_each(|flag| option(&mut text, flag));
    for group in program.groups {
        let heading = if group.heading.is_empty() { "Commands" } else { group.heading };
        section(&mut text, &heading.to_uppercase());
        let shared = shared(group);
        shared.iter().for_each(|block| match block {
            Block::Options(flags) => {
                paragraph(&mut text, "These options go with all of these commands:");
                flags.iter().for_each(|flag| option(&mut text, flag));
            }
            Block::Text(words) => paragraph(&mut text, words),
            Block::About(_) | Block::Titled(..) | Block::Shown(_) | Block::Rows(_) | Block::Example(_) => {}
        });
        for above in group.commands {
            command(&mut text, program, &[above.name], above, &[], &shared);
            for below in above.commands {
                command(&mut text, program, &[above.name, below.name], below, above.body, &shared);
            }
        }
    }
    section(&mut text, "EXIT STATUS");
    for (code, meaning) in program.exit_codes {
        tagged(&mut text, &bold(&code.to_string()), &capital(meaning));
    }
    for (heading, rows) in [("FILES", page.files), ("ENVIRONMENT", page.environment)] {
        section(&mut text, heading);
        rows.iter().for_each(|(name, meaning)| tagged(&mut text, &italic(name), meaning));
    }
    section(&mut text, "EXAMPLES");
    page.examples.iter().for_each(|(line, meaning)| tagged(&mut text, &bold(line), meaning));
    section(&mut text, "SEE ALSO");
    let others = page.see_also.iter().map(|(name, section)| format!("{}({section})", bold(name)));
    text += &others.collect::<Vec<_>>().join(",\n");
    text.push('\n');
    text
}

/// What every command of a group has: options and texts that are said once.
fn shared(group: &Group) -> Vec<Block> {
    let [first, others @ ..] = group.commands else { return Vec::new() };
    let is_said_once = |block: &Block| match block {
        Block::Options(_) | Block::Text(_) => !others.is_empty(),
        Block::About(_) | Block::Titled(..) | Block::Shown(_) | Block::Rows(_) | Block::Example(_) => false,
    };
    let of_first = first.body.iter().filter(|block| is_said_once(block));
    of_first.filter(|block| others.iter().all(|command| command.body.contains(block))).copied().collect()
}

/// A command. Options that the one above it shows are named there, and what is shared was said before.
fn command(
    text: &mut String,
    program: &Program,
    path: &[&str],
    command: &Command,
    above: &[Block],
    shared: &[Block],
) {
    *text += &format!(".SS {}\n", escaped(&path.join(" ")));
    synopsis(text, program, usage_of(command).into_iter());
    if command.body.iter().all(|block| !matches!(block, Block::Text(_) | Block::About(_))) {
        paragraph(text, &format!("{}.", capital(command.about)));
    }
    let is_above =
        |flags: &[Flag]| above.iter().any(|block| matches!(block, Block::Shown(shown) if *shown == flags));
    let has_more = command.body.iter().any(|block| match block {
        Block::Options(flags) | Block::Titled(_, flags) => !is_above(flags),
        Block::Text(_) | Block::About(_) | Block::Shown(_) | Block::Rows(_) | Block::Example(_) => false,
    });
    let mut names_above = false;
    for block in command.body.iter().filter(|block| !shared.contains(block)) {
        match block {
            Block::Text(words) => paragraph(text, words),
            Block::About(more) => {
                paragraph(text, &format!("{}.", capital(command.about)));
                if !more.is_empty() {
                    paragraph(text, more);
                }
            }
            Block::Options(flags) | Block::Shown(flags) if is_above(flags) => {
                if !std::mem::replace(&mut names_above, true) {
                    let above = "It takes the options that are said above for all of its kind";
                    let more = if has_more { ", and these:" } else { "." };
                    paragraph(text, &format!("{above}{more}"));
                }
            }
            Block::Options(flags) | Block::Shown(flags) => flags.iter().for_each(|flag| option(text, flag)),
            Block::Titled(heading, flags) => {
                paragraph(text, &format!("{heading}:"));
                flags.iter().for_each(|flag| option(text, flag));
            }
            Block::Rows(rows) => rows.iter().for_each(|(word, meaning)| tagged(text, &bold(word), meaning)),
            Block::Example(line) => *text += &format!(".PP\n.RS 4\n.nf\n{}\n.fi\n.RE\n", bold(line)),
        }
    }
}

fn section(text: &mut String, heading: &str) {
    *text += &format!(".SH {}\n", escaped(heading));
}

fn synopsis(text: &mut String, program: &Program, lines: impl Iterator<Item = String>) {
    for (at, line) in lines.enumerate() {
        let between = if at == 0 { ".PP\n" } else { ".br\n" };
        *text += &format!("{between}{} {}\n", bold(program.name), styled(&line));
    }
}

fn paragraph(text: &mut String, words: &str) {
    *text += &format!(".PP\n{}\n", prose(words));
}

fn tagged(text: &mut String, tag: &str, meaning: &str) {
    *text += &format!(".TP\n{tag}\n{}\n", prose(meaning));
}

fn option(text: &mut String, flag: &Flag) {
    let meaning = flag.explained();
    // A choice at the start is typed as it is written.
    let begins_with_choice = match flag.value {
        Some(Value { kind: Kind::Choice(choices), .. }) => {
            choices.iter().any(|word| meaning.starts_with(word))
        }
        Some(_) | None => false,
    };
    let mut meaning = if begins_with_choice { meaning } else { capital(&meaning) };
    let mut add = |sentence: String| {
        if !meaning.ends_with(['.', '!', '?']) {
            meaning.push('.');
        }
        meaning += &format!(" {sentence}");
    };
    for other in flag.also {
        add(format!("--{other} is the same."));
    }
    if flag.place == Place::BehindToo {
        add("It may also stand behind the command.".to_owned());
    }
    if flag.shown == Shown::PageOnly {
        add("For scripts that were written for other programs.".to_owned());
    }
    tagged(text, &styled(&spelled(flag)), &meaning);
}

/// Text for people: the ends of lines are where the formatter wants them, and what is typed is bold.
fn prose(words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut text = String::new();
    for (at, piece) in words.join(" ").split('`').enumerate() {
        text += &if at % 2 == 0 { escaped(piece) } else { bold(piece) };
    }
    at_line_start(text)
}

/// A usage or an option: names of values are in italics, everything else that is typed is bold.
fn styled(line: &str) -> String {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut text = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let is_word = is_of_word(first);
        let end = rest.find(|c| is_of_word(c) != is_word).unwrap_or(rest.len());
        let (piece, behind) = rest.split_at(end);
        text += &match is_word {
            false => escaped(piece),
            true if first.is_ascii_uppercase() => italic(piece),
            true => bold(piece),
        };
        rest = behind;
    }
    at_line_start(text)
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escaped(text))
}

fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", escaped(text))
}

/// Characters that mean something to the formatter, or that it would replace by nicer ones which nobody can type.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\\' => escaped += "\\(rs",
            '-' => escaped += "\\-",
            '\'' => escaped += "\\(aq",
            '"' => escaped += "\\(dq",
            '^' => escaped += "\\(ha",
            '~' => escaped += "\\(ti",
            '`' => escaped += "\\(ga",
            other => escaped.push(other),
        }
    }
    escaped
}

/// A line that begins with a dot would be a request.
fn at_line_start(text: String) -> String {
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    // A word of the program stays as it is typed.
    let word: String = text.chars().take_while(|c| !c.is_whitespace()).collect();
    let is_plain = word.chars().all(|c| c.is_ascii_alphabetic() || ",;:'.".contains(c));
    if is_plain { first.to_uppercase().chain(letters).collect() } else { text.to_owned() }
}
