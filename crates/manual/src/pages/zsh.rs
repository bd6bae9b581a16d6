//! Completion for zsh, by its function `_arguments`.

use super::{Place, choices, function, places, summary};
use crate::{Argument, Flag, Kind, Program};

/// The script of a program: a function for each command.
pub(super) fn completion(program: &Program) -> String {
    let function = function(program);
    let places = places(program);
    let mut text = format!("#compdef {}\n\n# Completion of {0} for zsh.\n", program.name);
    for place in &places {
        text += &format!("\n{}() {{\n", named(&function, &place.path));
        if !place.commands.is_empty() {
            text += "    local curcontext=\"$curcontext\" state line\n    typeset -A opt_args\n";
        }
        text += "    _arguments -s -S";
        if !place.commands.is_empty() {
            text += " -C";
        }
        place.flags.iter().for_each(|flag| text += &format!(" \\\n        {}", option(flag)));
        if place.commands.is_empty() {
            let arguments = place.arguments.iter().enumerate();
            arguments.for_each(|(at, argument)| text += &format!(" \\\n        {}", operand(at, argument)));
            text += "\n}\n";
            continue;
        }
        text += " \\\n        '1: :->command' '*:: :->rest'\n";
        text += &dispatch(&function, place);
        text += "}\n";
    }
    text + &format!("\n{function} \"$@\"\n")
}

fn dispatch(function: &str, place: &Place) -> String {
    let mut text = "    case $state in\n        command)\n            local -a commands=(\n".to_owned();
    for (name, about) in &place.commands {
        text += &format!("                {}\n", quoted(&format!("{name}:{about}")));
    }
    text += "            )\n            _describe -t commands command commands\n            ;;\n        rest)\n            case $words[1] in\n";
    for (name, _) in &place.commands {
        let path = if place.path.is_empty() { (*name).to_owned() } else { format!("{} {name}", place.path) };
        text += &format!("                {name}) {} ;;\n", named(function, &path));
    }
    text + "            esac\n            ;;\n    esac\n"
}

/// The function of a place.
fn named(function: &str, path: &str) -> String {
    let path = path.replace([' ', '-'], "_");
    if path.is_empty() { function.to_owned() } else { format!("{function}_at_{path}") }
}

fn option(flag: &Flag) -> String {
    let spellings = flag.spellings();
    let value = flag.value.map(|value| format!(":{}:{}", plain(value.name), action(value.kind)));
    let word = |spelling: &String| match (&value, spelling.starts_with("--")) {
        (None, _) => spelling.clone(),
        (Some(_), true) => format!("{spelling}="),
        (Some(_), false) => format!("{spelling}+"),
    };
    let words: Vec<String> = spellings.iter().map(word).collect();
    let words = if let [only] = words.as_slice() { only.clone() } else { format!("{{{}}}", words.join(",")) };
    let excludes = if flag.is_repeatable { "*".to_owned() } else { format!("({})", spellings.join(" ")) };
    let meaning = format!("[{}]{}", plain(&summary(flag)), value.unwrap_or_default());
    format!("{}{words}{}", quoted(&excludes), quoted(&meaning))
}

fn operand(at: usize, argument: &Argument) -> String {
    let place = if argument.is_repeatable { "*".to_owned() } else { (at + 1).to_string() };
    let optional = if argument.is_needed || argument.is_repeatable { "" } else { ":" };
    let action = match argument.kind {
        // A message, which keeps zsh from inserting the option that is the only match: not where one is typed.
        Kind::Text => format!("{{ [[ $PREFIX == -* ]] || _message {} }}", argument.name),
        Kind::File | Kind::Folder | Kind::Artifact | Kind::Choice(_) => action(argument.kind),
    };
    quoted(&format!("{place}{optional}:{}:{action}", plain(argument.name)))
}

fn action(kind: Kind) -> String {
    match (choices(kind), kind) {
        (Some(words), _) => format!("({})", words.join(" ")),
        (None, Kind::File) => "_files".to_owned(),
        (None, Kind::Folder) => "_files -/".to_owned(),
        (None, Kind::Artifact) => "_files -g \"*.mender(-.)\"".to_owned(),
        // A message is shown, and nothing is offered.
        (None, Kind::Text | Kind::Choice(_)) => String::new(),
    }
}

/// Characters that mean something in a specification.
fn plain(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:").replace('[', "\\[").replace(']', "\\]")
}

fn quoted(text: &str) -> String {
    super::quoted(text)
}
