//! Completion for fish.

use super::{function, places, summary};
use crate::{Flag, Kind, Program};

/// The script of a program.
pub(super) fn completion(program: &Program) -> String {
    let name = program.name;
    let at = format!("_{}_at", function(program));
    let places = places(program);
    let mut values = Vec::new();
    let mut walk = String::new();
    for place in &places {
        let with_value = place.flags.iter().filter(|flag| flag.value.is_some());
        values.extend(
            with_value.flat_map(Flag::spellings).map(|word| quoted(&format!("{}:{word}", place.path))),
        );
        for (command, _) in &place.commands {
            let next = if place.path.is_empty() {
                (*command).to_owned()
            } else {
                format!("{} {command}", place.path)
            };
            let pattern = quoted(&format!("{}:{command}", place.path));
            walk += &format!("            case {pattern}\n                set path {}\n", quoted(&next));
        }
    }
    let mut text = format!(
        "\
# Completion of {name} for fish.

function {at} --description 'Whether the command line has come to this command, and to this word behind it'
    set -l path ''
    set -l skip 0
    set -l operands 0
    for word in (commandline -opc)[2..]
        if test $skip = 1
            set skip 0
            continue
        end
        switch \"$path:$word\"
            case {values}
                set skip 1
            case '*:-?*'
{walk}            case '*'
                set operands (math $operands + 1)
        end
    end
    test \"$path\" = $argv[1]
    or return 1
    set -q argv[2]
    or return 0
    test \"$argv[2]\" = '*' -o \"$argv[2]\" = $operands
end

complete -c {name} -f
",
        values = values.join(" ")
    );
    for place in &places {
        let here = |word: &str| quoted(&format!("{at} {}{word}", quoted(&place.path)));
        for (command, about) in &place.commands {
            text += &format!("complete -c {name} -n {} -a {command} -d {}\n", here(" 0"), quoted(about));
        }
        for (number, argument) in place.arguments.iter().enumerate() {
            if let Some(offered) = offered(argument.kind) {
                let number = if argument.is_repeatable { " \\*".to_owned() } else { format!(" {number}") };
                text += &format!("complete -c {name} -n {} {offered}\n", here(&number));
            }
        }
        for flag in &place.flags {
            let letter = flag.short.map(|letter| format!(" -s {letter}")).unwrap_or_default();
            let words: String =
                [flag.long].iter().chain(flag.also).map(|word| format!(" -l {word}")).collect();
            let value = match flag.value {
                None => String::new(),
                Some(value) => format!(" -r {}", offered(value.kind).unwrap_or_else(|| "-f".to_owned())),
            };
            text += &format!(
                "complete -c {name} -n {}{letter}{words}{value} -d {}\n",
                here(""),
                quoted(&summary(flag))
            );
        }
    }
    text
}

fn offered(kind: Kind) -> Option<String> {
    match kind {
        Kind::Text => None,
        Kind::File => Some("-F".to_owned()),
        Kind::Folder => Some("-f -a '(__fish_complete_directories)'".to_owned()),
        Kind::Artifact => Some("-f -k -a '(__fish_complete_suffix .mender)'".to_owned()),
        Kind::Choice(words) => Some(format!("-f -a {}", quoted(&words.join(" ")))),
    }
}

/// Between single quotes, in which fish knows two escapes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
