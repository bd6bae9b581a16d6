//! The project's own tasks: what CI runs, the house rules as checks, the demo, and the measurements.
//!
//! Nothing of this is shipped. Errors are sentences for a person: nobody matches on them. What needs a device of files is
//! another program, `desk`, which this one builds when it is asked for: it has many dependencies.
#![forbid(unsafe_code)]
// A program has no public items: `pub` marks what other modules use.
#![allow(unreachable_pub)]
// Telling a person what happened is what these tasks are for.
#![allow(clippy::print_stdout)]

mod crates_inc;
mod debian;
mod dist;
mod house;
mod manual;
mod openapi;
mod page;
mod qemu;
mod source;
mod test;
mod tidy;

use std::process::ExitCode;

use xtask::{Outcome, options, size, workspace};

/// A task and what is said about it.
struct Task {
    name: &'static str,
    /// One line or some, for the list of all tasks.
    about: &'static str,
    /// What `--help` after its name prints.
    help: &'static str,
    run: fn(&[String]) -> Outcome,
}

const TASKS: &[Task] = &[
    Task {
        name: "test",
        about: "Everything CI runs, with a summary. --quick stops after the tests, --all is the long run",
        help: test::HELP,
        run: test::run,
    },
    Task {
        name: "tidy",
        about: "Check the import rules and the house rules",
        help: "\
Usage: cargo xtask tidy [--write | --edges]

Checks the import rules and the house rules: who may import whom, and that nobody may who does not; words; files, crates and
pages that documents and comments name. --write puts the import table into ARCHITECTURE.md, and the options of the server into
docs/operating-the-server.md. --edges only prints which module imports which now.
",
        run: tidy::run,
    },
    Task {
        name: "demo",
        about: "Updates over the air of a virtual device; also `cargo demo`",
        help: "\
Usage: cargo xtask demo

The same as cargo demo: updates over the air of a device that is a folder, target/demo.
",
        run: demo,
    },
    Task {
        name: "device",
        about: "Make a device of files, to try the commands on a desk",
        help: "\
Usage: cargo xtask device DIRECTORY [--server URL] [--slot-mib N]
       cargo xtask device DIRECTORY restart [--hangs]

Makes a device of files in the new or empty DIRECTORY: two slots of N MiB (default 32), a boot environment of U-Boot with
two copies, keys, a configuration. Nothing in it needs root, and it restarts nobody. The commands to use it with are
printed, and kept in DIRECTORY/commands. --server is where its daemon asks (default http://127.0.0.1:8080).

`restart` is what the bootloader would do: it starts the slot that the environment names, and the configuration says which
one runs. With --hangs that slot does not come up.
",
        run: |arguments| desk("device", arguments),
    },
    Task {
        name: "dist",
        about: "Build the programs as they ship, into target/dist",
        help: dist::HELP,
        run: dist::run,
    },
    Task {
        name: "crates-inc",
        about: "Write what the Yocto layer says of this workspace",
        help: crates_inc::HELP,
        run: crates_inc::run,
    },
    Task {
        name: "house",
        about: "Count lines of code, the longest functions, public items that nobody uses",
        help: house::HELP,
        run: house::run,
    },
    Task {
        name: "manual",
        about: "Write man pages and completions of all programs, into target/dist",
        help: manual::HELP,
        run: manual::run,
    },
    Task {
        name: "openapi",
        about: "Check docs/openapi.json with a validator",
        help: openapi::HELP,
        run: openapi::run,
    },
    Task {
        name: "page",
        about: "Try the server's page in a real browser",
        help: page::HELP,
        run: page::run,
    },
    Task {
        name: "size",
        about: "Build the client as it ships and check its size",
        help: size::HELP,
        run: size::run,
    },
    Task {
        name: "qemu",
        about: "Updates, fall-backs and power cuts of real bootloaders and kernels under QEMU.
              `qemu list` shows boards and scenarios, `qemu shell BOARD` opens a console",
        // The board tests know their options.
        help: "",
        run: qemu::run,
    },
    Task {
        name: "bench",
        about: "Measure installation, update modules, the daemon, the server, a fleet, deltas",
        help: "\
Usage: cargo xtask bench [install] [--runs N] [--mib N] [--client PROGRAM] [--baseline PROGRAM] [--peers] [--without-xz] [--write]
       cargo xtask bench modules [--runs N] [--mib N] [--client PROGRAM] [--write]
       cargo xtask bench daemon [--polls N] [--mib N] [--client PROGRAM] [--write]
       cargo xtask bench server [--devices N] [--seconds N] [--write]
       cargo xtask bench fleet [--sizes N,...] [--seconds N] [--within N] [--whole-up-to N] [--apart-up-to N]
                               [--postgres URL] [--program PROGRAM] [--keep] [--report] [--json] [--write]
       cargo xtask bench delta [--pair security|release] [--client PROGRAM] [--tool PROGRAM] [--no-install] [--write]

  install   installation against a plain pipe; with --peers against Mender's client, SWUpdate and RAUC too
  modules   streaming a file into an update module against `cat` into a FIFO
  daemon    memory, processor time and traffic of the daemon
  server    how many devices one server answers
  fleet     one server with up to a million devices: devices that ask, a person who looks at lists, deployments; with
            --postgres two servers on one empty database, one of which is killed. --keep keeps what was filled and
            measured, --report shows that again; larger fleets than --whole-up-to have no deployment to all devices, than
            --apart-up-to no herd with a connection for each device
  delta     deltas of two pairs of images against hdiffpatch, xdelta3, bsdiff and zstd

--client (--tool for the host tool) measures another build than the one that ships; --baseline lets an earlier build take
turns with it; --write puts the table into docs/performance.md.
",
        run: bench,
    },
];

/// Deltas are measured against programs of others.
fn bench(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    if arguments.first().is_some_and(|part| part == "delta") {
        let before = arguments.len();
        arguments.retain(|argument| argument != "--no-install");
        let tools = debian::prepare_for_deltas(arguments.len() == before);
        if !tools.missing.is_empty() {
            return Err(format!("{} are not to be had: {}", tools.missing.join(", "), tools.reason));
        }
    }
    desk("bench", &arguments)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &[String]) -> Outcome {
    let Some((name, rest)) = arguments.split_first() else {
        return Err(format!("no task given\n\n{}", help()));
    };
    if asks_for_help(name) {
        print!("{}", help());
        return Ok(());
    }
    let task = TASKS.iter().find(|task| task.name == name);
    let task = task.ok_or_else(|| format!("there is no task {name:?}\n\n{}", help()))?;
    if rest.iter().any(|argument| asks_for_help(argument)) && !task.help.is_empty() {
        print!("{}\n\n{}", task.about, task.help);
        return Ok(());
    }
    (task.run)(rest)
}

fn asks_for_help(argument: &str) -> bool {
    ["--help", "-h", "help"].contains(&argument)
}

fn help() -> String {
    let mut text = "The project's own tasks\n\nUsage: cargo xtask TASK [options]\n\nTasks:\n".to_owned();
    for task in TASKS {
        text += &format!("  {:<12}{}\n", task.name, task.about);
    }
    text + "\n`cargo xtask TASK --help` has the options of a task.\n"
}

/// The program that speaks before it builds.
fn demo(arguments: &[String]) -> Outcome {
    workspace::run(workspace::cargo().args(["run", "--quiet", "--package", "demo", "--"]).args(arguments))
}

/// A task with a device of files. Their program is another one: this one is to be built fast.
fn desk(task: &str, arguments: &[String]) -> Outcome {
    let mut command = std::process::Command::new(workspace::programs()?.join("desk"));
    workspace::run(command.arg(task).args(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_answers_the_question_for_help() {
        for task in TASKS.iter().filter(|task| task.name != "qemu") {
            assert_eq!(start(&[task.name.into(), "--help".into()]), Ok(()), "{}", task.name);
            assert!(task.help.contains(&format!("cargo xtask {}", task.name)), "{}", task.name);
            assert!(help().contains(task.about), "{}", task.name);
        }
        assert_eq!(start(&["--help".into()]), Ok(()));
    }

    #[test]
    fn a_task_that_does_not_exist_is_refused_with_the_list() {
        assert!(start(&["tset".into()]).unwrap_err().contains("cargo xtask TASK"));
        assert!(start(&[]).is_err());
    }
}
