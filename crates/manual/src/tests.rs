//! What holds for every description, and for what is made of it.

use super::*;

/// Every program, and every command of it, with its help and the options that it takes.
fn places() -> Vec<(String, String, Vec<Flag>)> {
    let mut places = Vec::new();
    for program in PROGRAMS {
        places.push((program.name.to_owned(), help::of_program(program), program.takes()));
        for (path, command) in program.all_commands() {
            let name = format!("{} {}", program.name, path.join(" "));
            places.push((name, help::of_command(program, command), program.taken_by(command)));
        }
    }
    places
}

fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c))).collect()
}

#[test]
fn every_default_and_every_choice_is_said() {
    for (place, help, flags) in places() {
        for flag in flags {
            let explained = flag.explained();
            assert_eq!(flag.help.contains("{default}"), flag.default.is_some(), "{place} --{}", flag.long);
            if let (Some(Value { kind: Kind::Choice(choices), name }), Shown::Everywhere) =
                (flag.value, flag.shown)
            {
                // The overview of a program says it with the command.
                let said = [words(name), words(&explained), words(&help)].concat();
                let is_brief = flag.long == "compression" && !place.contains(" write ");
                assert!(
                    is_brief || choices.iter().all(|choice| said.contains(choice)),
                    "{place} --{}",
                    flag.long
                );
                assert!(
                    flag.default.is_none_or(|default| choices.contains(&default)),
                    "{place} --{}",
                    flag.long
                );
            }
            assert_eq!(explained.contains("several times"), flag.is_repeatable, "{place} --{}", flag.long);
        }
    }
}

#[test]
fn what_a_help_names_is_an_option_of_the_program() {
    for program in PROGRAMS {
        let mut known = program.takes();
        known.extend(program.all_commands().iter().flat_map(|(_, command)| program.taken_by(command)));
        let known: Vec<String> = known.iter().flat_map(Flag::spellings).collect();
        for (place, help, _) in
            places().iter().filter(|(place, ..)| place.split(' ').next() == Some(program.name))
        {
            for word in words(help).iter().filter(|word| word.starts_with("--") && word.len() > 2) {
                assert!(known.iter().any(|known| known == word), "{place}: {word}");
            }
        }
    }
}

#[test]
fn the_usage_has_the_arguments_in_their_order() {
    for program in PROGRAMS {
        for (path, command) in program.all_commands() {
            let usage = help::usage_of(command).join("\n");
            let mut rest = usage.as_str();
            for argument in command.arguments {
                let at = rest.find(argument.name);
                let at = at.unwrap_or_else(|| panic!("{path:?}: {} is not in {usage}", argument.name));
                rest = &rest[at + argument.name.len()..];
                let more = rest.trim_start_matches([']', '[']).starts_with("...");
                assert_eq!(more, argument.is_repeatable, "{path:?}: {}", argument.name);
            }
            assert!(path.iter().all(|word| usage.contains(word)), "{path:?}");
        }
    }
}

#[test]
fn a_help_fits_a_terminal_of_a_developer_and_ends_with_one_line_end() {
    for (place, help, _) in places() {
        let widest = help.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(widest <= 132, "{place}: {widest}");
        assert!(help.ends_with('\n') && !help.ends_with("\n\n") && !help.contains("\n\n\n"), "{place}");
        assert!(help.lines().all(|line| line.trim_end() == line), "{place}");
    }
}

#[test]
fn a_help_has_this_shape() {
    const COMMAND: Command = Command {
        name: "feed",
        words: "CAT...",
        about: "give a cat something",
        usage: &[],
        body: &[
            Block::About("Twice a day."),
            Block::Rows(&[("-", "all of them")]),
            Block::Options(&[
                Flag::new("with", "what ({default})\nand no more").short('w').text("FOOD").default("fish"),
                Flag::new("a-long-option", "explained below"),
                Flag::new("old", "for nobody").page_only(),
            ]),
            Block::Example("cats feed --with meat tom"),
        ],
        column: 18,
        arguments: &[Argument::needed("CAT", Kind::Text).repeatable()],
        commands: &[],
    };
    let text = "\
Usage: rust-ota feed CAT... [OPTION]...

give a cat something
Twice a day.

  -               all of them
  -w, --with FOOD
                  what (fish)
                  and no more
  --a-long-option
                  explained below

  cats feed --with meat tom
";
    assert_eq!(help::of_command(&rust_ota::PROGRAM, &COMMAND), text);
}

#[test]
fn the_source_for_a_small_program_has_a_constant_for_each_command() {
    let source = help::as_source(&rust_ota::PROGRAM);
    for (path, command) in rust_ota::PROGRAM.all_commands() {
        let name = path.join("_").replace('-', "_").to_uppercase();
        let text = help::of_command(&rust_ota::PROGRAM, command);
        assert!(source.contains(&format!("pub const {name}: &str = {text:?};\n")), "{name}");
    }
}

#[cfg(feature = "pages")]
mod pages {
    use super::*;

    fn file(path: &str) -> String {
        let files = crate::pages::files("1.2.3");
        files.into_iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path} is not there")).text
    }

    #[test]
    fn every_option_and_every_command_is_in_the_page_and_in_the_scripts() {
        for program in PROGRAMS {
            let name = program.name;
            let page = file(&format!("man/{name}.{}", program.page.section)).replace('\\', "");
            let scripts = ["bash/", "zsh/_", "fish/"].map(|shell| {
                let end = if shell == "fish/" { ".fish" } else { "" };
                file(&format!("completions/{shell}{name}{end}"))
            });
            for (path, command) in program.all_commands() {
                assert!(page.contains(&format!(".SS {}\n", path.join(" "))), "{path:?}");
                for flag in program.taken_by(command).into_iter().chain(program.takes()) {
                    assert!(page.contains(&format!("--{}", flag.long)), "{path:?} {}", flag.long);
                    let told = flag.shown == Shown::Everywhere;
                    for script in scripts.iter().filter(|_| told) {
                        let words = words(script);
                        let is_there = [flag.long.to_owned(), format!("--{}", flag.long)];
                        assert!(
                            words.iter().any(|word| is_there.iter().any(|known| known == word)),
                            "{}",
                            flag.long
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn no_line_of_a_page_is_a_request_by_accident() {
        let requests = [".TH", ".nh", ".ad", ".SH", ".SS", ".PP", ".TP", ".RS", ".RE", ".nf", ".fi", ".br"];
        for file in crate::pages::files("1.2.3").iter().filter(|file| file.path.starts_with("man/")) {
            for line in file.text.lines().filter(|line| line.starts_with(['.', '\''])) {
                let request = line.split(' ').next().unwrap_or_default();
                assert!(requests.contains(&request), "{}: {line}", file.path);
            }
            assert!(file.text.starts_with(".TH RUST\\-OTA"), "{}", file.path);
            assert!(file.text.contains("\"rust-ota 1.2.3\""));
        }
    }
}
