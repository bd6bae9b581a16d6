//! Man pages and completions as others read them: the formatter has no complaint, and the shells offer what is there.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use super::green::{Green, Inputs};
use super::report::Report;
use super::unless_green;
use crate::{Outcome, debian, manual, workspace};

const STEP: &str = "manual";

/// What is typed up to the key that completes, and the only word that is offered then; nothing where none is.
const OFFERS: &[(&str, &str)] = &[
    ("rust-ota ins", "install"),
    ("rust-ota --no-s", "--no-syslog"),
    ("rust-ota --log-level fat", "fatal"),
    ("rust-ota -c file comm", "commit"),
    ("rust-ota install rel", "release-2.mender"),
    ("rust-ota install --reb", "--reboot-exit-code"),
    ("rust-ota install --stop-before Cl", "Cleanup"),
    ("rust-ota --json rollback --to", "--to-other-slot"),
    ("rust-ota commit --to", ""),
    ("rust-ota refuse --reason because co", "commit"),
    ("rust-ota-artifact val", "validate"),
    ("rust-ota-artifact write dir", "directory"),
    ("rust-ota-artifact write directory --repr", "--reproducible"),
    ("rust-ota-artifact write script --own", ""),
    ("rust-ota-artifact write rootfs-image --compression no", "none"),
    ("rust-ota-artifact validate -k file rel", "release-2.mender"),
    ("rust-ota-server dep", "deploy"),
    ("rust-ota-server deploy name release-2 --wa", "--wait"),
    ("rust-ota-server devices --status rej", "rejected"),
    ("rust-ota-server upload rel", "release-2.mender"),
    ("rust-ota-server serve --aut", "--auto-accept"),
];

/// What a shell offers on each of the command lines, with the scripts of this folder, in that one.
type Offers = fn(&Path, &Path) -> Outcome<Vec<String>>;

/// Writes them and looks at them, unless nothing that they are made of has changed.
pub fn step(green: &Green, report: &mut Report, may_install: bool) {
    if green.knows(STEP, Inputs::Manual) {
        return unless_green(green, report, STEP, Inputs::Manual, || Ok(()));
    }
    let tools = debian::prepare_for_manual(may_install);
    if tools.missing.is_empty() {
        return unless_green(green, report, STEP, Inputs::Manual, || check(&[]));
    }
    report.leave_out(&format!("{STEP} with {}: {}", tools.missing.join(", "), tools.reason));
    report.step(STEP, || check(&tools.missing));
}

/// Looks at them with everything that is installed.
pub fn check_all() -> Outcome {
    let missing = debian::prepare_for_manual(false).missing;
    missing.iter().for_each(|program| println!("left out: {program} is not installed"));
    check(&missing)
}

fn check(missing: &[&str]) -> Outcome {
    let folder = workspace::target_directory()?.join("xtask/manual");
    workspace::fresh_directory(&folder)?;
    let written = manual::write(&folder)?;
    let has = |program: &str| !missing.contains(&program);
    for page in written.iter().filter(|path| path.starts_with(folder.join("man"))) {
        if has("groff") {
            is_silent(Command::new("groff").args(["-ww", "-man", "-Tutf8", "-z"]).arg(page))?;
        }
    }
    let desk = folder.join("desk");
    workspace::fresh_directory(&desk)?;
    workspace::write(&desk.join("release-2.mender"), "")?;
    workspace::write(&desk.join("notes.txt"), "")?;
    let shells: [(&str, Offers); 3] = [("bash", of_bash), ("zsh", of_zsh), ("fish", of_fish)];
    for (shell, offers) in shells.into_iter().filter(|(shell, _)| has(shell)) {
        let scripts = folder.join("completions").join(shell);
        for script in written.iter().filter(|path| path.starts_with(&scripts)) {
            is_silent(Command::new(shell).arg("-n").arg(script))?;
        }
        let offered = offers(&scripts, &desk)?;
        let wrong: Vec<String> = OFFERS
            .iter()
            .zip(&offered)
            .filter(|((_, expected), offered)| expected != offered)
            .map(|((line, expected), offered)| format!("{line}: {offered:?} instead of {expected:?}"))
            .collect();
        if offered.len() != OFFERS.len() || !wrong.is_empty() {
            return Err(format!("{shell} offers something else ({}): {}", offered.len(), wrong.join("; ")));
        }
        println!("{shell} offers what it should on {} command lines", OFFERS.len());
    }
    Ok(())
}

fn is_silent(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {}: {error}", workspace::shown(command)))?;
    if output.status.success() && output.stdout.is_empty() && output.stderr.is_empty() {
        return Ok(());
    }
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    Err(format!("{}: {}", workspace::shown(command), said.trim_end()))
}

/// A line for each command line, as `script` prints them.
fn lines(shell: &str, options: &[&str], script: &str, desk: &Path) -> Outcome<Vec<String>> {
    let mut command = Command::new(shell);
    command.args(options).arg("-c").arg(script).current_dir(desk).stdin(Stdio::null());
    // Nobody's own settings.
    command.env("HOME", desk).env("XDG_CONFIG_HOME", desk.join("config")).env("TERM", "dumb");
    let output = workspace::capture(&mut command)?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim_end().to_owned()).collect())
}

/// By the function that is registered for the program.
fn of_bash(scripts: &Path, desk: &Path) -> Outcome<Vec<String>> {
    let mut script = "\
ask() {
    COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    local name
    name=$(complete -p \"$1\") || exit
    name=${name#complete -F }
    \"${name%% *}\"
    echo \"${COMPREPLY[*]}\"
}
"
    .to_owned();
    sources(&mut script, scripts, "")?;
    OFFERS.iter().for_each(|(line, _)| script += &format!("ask {line}\n"));
    lines("bash", &["--norc", "--noprofile"], &script, desk)
}

/// By its command `complete -C`.
fn of_fish(scripts: &Path, desk: &Path) -> Outcome<Vec<String>> {
    let mut script = String::new();
    sources(&mut script, scripts, ".fish")?;
    for (line, _) in OFFERS {
        script += &format!("echo (complete -C '{line}' | string split -f1 \\t)\n");
    }
    lines("fish", &["--no-config"], &script, desk)
}

/// In a terminal, by the key: what the line is afterwards.
fn of_zsh(scripts: &Path, desk: &Path) -> Outcome<Vec<String>> {
    let mut script = format!(
        "\
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1=; unsetopt beep; fpath=({} $fpath); autoload -U compinit; compinit -u -D
show() {{ print -r -- \"<\"\"<$BUFFER>\"\">\"; BUFFER=; }}
zle -N show; bindkey \"^X\" show; bindkey \"^I\" complete-word; print rea\"\"dy'
zpty -r -m shell said '*ready*'
ask() {{
    zpty -n -w shell \"$1\"$'\\t\\x18'
    zpty -r -m shell said '*<<*>>*'
    said=${{said##*<<}}
    print -r -- \"${{said%%>>*}}\"
}}
",
        scripts.display()
    );
    OFFERS.iter().for_each(|(line, _)| script += &format!("ask '{line}'\n"));
    script += "zpty -d shell\n";
    let completed = lines("zsh", &["-f"], &script, desk)?;
    // A line that nothing was offered for is as it was.
    let offered = |((line, _), now): (&(&str, &str), &String)| match now.as_str() == *line {
        true => String::new(),
        false => now.rsplit(' ').next().unwrap_or_default().to_owned(),
    };
    Ok(OFFERS.iter().zip(&completed).map(offered).collect())
}

fn sources(script: &mut String, scripts: &Path, end: &str) -> Outcome {
    let programs: BTreeMap<&str, ()> =
        OFFERS.iter().map(|(line, _)| (line.split(' ').next().unwrap_or_default(), ())).collect();
    for program in programs.keys() {
        let path = scripts.join(format!("{program}{end}"));
        if !path.is_file() {
            return Err(format!("{} is not there", path.display()));
        }
        *script += &format!("source {}\n", path.display());
    }
    Ok(())
}
