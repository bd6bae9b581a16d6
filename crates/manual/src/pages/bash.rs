//! Completion for bash, without the package `bash-completion`.

use super::{Place, choices, function, places, quoted};
use crate::{Flag, Kind, Program};

/// The script of a program.
pub(super) fn completion(program: &Program) -> String {
    let function = function(program);
    let places = places(program);
    let mut walk = String::new();
    let mut values = String::new();
    let mut flags = String::new();
    let mut arguments = String::new();
    for place in &places {
        let path = &place.path;
        let with_value: Vec<&Flag> = place.flags.iter().filter(|flag| flag.value.is_some()).collect();
        let spellings = |flag: &Flag| {
            flag.spellings()
                .iter()
                .map(|word| quoted(&format!("{path}:{word}")))
                .collect::<Vec<_>>()
                .join("|")
        };
        if !with_value.is_empty() {
            let all: Vec<String> = with_value.iter().map(|flag| spellings(flag)).collect();
            walk += &format!("            {}) option=$word ;;\n", all.join("|"));
        }
        for flag in &with_value {
            if let Some(value) = flag.value.filter(|value| value.kind != Kind::Text) {
                values += &format!("        {}) {} ;;\n", spellings(flag), reply(&function, value.kind));
            }
        }
        let words: Vec<String> = place.flags.iter().flat_map(Flag::spellings).collect();
        flags += &format!("            {}) words={} ;;\n", quoted(path), quoted(&words.join(" ")));
        arguments += &of_arguments(&function, place);
    }
    for place in &places {
        for (name, _) in &place.commands {
            let next =
                if place.path.is_empty() { (*name).to_owned() } else { format!("{} {name}", place.path) };
            walk += &format!(
                "            {}) path={} ;;\n",
                quoted(&format!("{}:{name}", place.path)),
                quoted(&next)
            );
        }
    }
    format!(
        "\
# Completion of {name} for bash.

{function}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} path='' option='' words='' word i
    local -i operands=0
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        if [[ -n $option ]]; then
            # A value, which may stand behind an equals sign.
            [[ $word == = ]] || option=''
            continue
        fi
        case $path:$word in
{walk}            *:-?*) ;;
            *) operands+=1 ;;
        esac
    done
    [[ $cur == = ]] && cur=''
    case $path:$option in
{values}        *:?*) return ;;
    esac
    [[ -n $option ]] && return
    if [[ $cur == -* ]]; then
        case $path in
{flags}        esac
        {function}_words \"$words\"
        return
    fi
    case $path:$operands in
{arguments}    esac
}}

{function}_words() {{
    mapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$cur\")
}}

{function}_files() {{
    compopt -o filenames 2> /dev/null
    mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")
}}

{function}_folders() {{
    compopt -o filenames 2> /dev/null
    mapfile -t COMPREPLY < <(compgen -d -- \"$cur\")
}}

{function}_artifacts() {{
    compopt -o filenames 2> /dev/null
    mapfile -t COMPREPLY < <(compgen -d -- \"$cur\"; compgen -f -X '!*.mender' -- \"$cur\")
}}

complete -F {function} {name}
",
        name = program.name
    )
}

/// What completes a value of this kind.
fn reply(function: &str, kind: Kind) -> String {
    match (choices(kind), kind) {
        (Some(words), _) => format!("{function}_words {}; return", quoted(&words.join(" "))),
        (None, Kind::Folder) => format!("{function}_folders; return"),
        (None, Kind::Artifact) => format!("{function}_artifacts; return"),
        (None, Kind::File) => format!("{function}_files; return"),
        (None, Kind::Text | Kind::Choice(_)) => "return".to_owned(),
    }
}

fn of_arguments(function: &str, place: &Place) -> String {
    if !place.commands.is_empty() {
        let words: Vec<&str> = place.commands.iter().map(|(name, _)| *name).collect();
        return format!(
            "        {}) {function}_words {} ;;\n",
            quoted(&format!("{}:0", place.path)),
            quoted(&words.join(" "))
        );
    }
    let mut lines = String::new();
    for (at, argument) in
        place.arguments.iter().enumerate().filter(|(_, argument)| argument.kind != Kind::Text)
    {
        let pattern = quoted(&format!("{}:{at}", place.path));
        let pattern = if argument.is_repeatable {
            format!("{}*", quoted(&format!("{}:", place.path)))
        } else {
            pattern
        };
        lines += &format!("        {pattern}) {} ;;\n", reply(function, argument.kind));
    }
    lines
}
