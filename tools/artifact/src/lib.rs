//! The host tool `rust-ota-artifact`: writes, reads, checks, signs and changes artifacts.
//!
//! Options are named as in `mender-artifact` where they mean the same. What an artifact is, and every rule about it,
//! is in `artifact`; here are files, options and text.
#![forbid(unsafe_code)]

mod args;
mod delta;
mod dump;
mod edit;
mod failure;
mod filesystem;
mod frames;
mod keygen;
mod keys;
mod output;
mod partitions;
mod progress;
mod read;
mod sign;
mod source;
mod tree;
mod validate;
mod write;

use artifact::text::printable;
use failure::Failure;
use manual::help;
use manual::rust_ota_artifact::PROGRAM;
use std::ffi::OsString;
use std::io::Write;

/// What every command writes to, and what was said before the command.
struct Console<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// `--compression` before the command.
    compression: Option<String>,
}

/// Runs the program with these arguments, without the program's name. Returns whether it succeeded; if not, it has said
/// why on `err`.
pub fn run(args: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> bool {
    exit_code(args, out, err) == 0
}

/// The same with the exit code: 0; 3 where `validate` and `read` cannot open the artifact; 4 where `validate` finds it
/// wrong; 1 for everything else.
pub fn exit_code(args: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let mut console = Console { out, err, compression: None };
    let parser = lexopt::Parser::from_args(args);
    // What was printed has to arrive, too.
    let result = command(parser, &mut console).and_then(|()| console.print(""));
    match result {
        Ok(()) => 0,
        Err(failure) => {
            // There is no other place left to say it.
            let _ = writeln!(console.err, "rust-ota-artifact: {}", printable(&failure.to_string()));
            failure.code()
        }
    }
}

fn command(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    loop {
        return match parser.next()? {
            None => Err(Failure::usage("no command; see --help")),
            Some(Long("help") | Short('h')) => console.print(&help::of_program(&PROGRAM)),
            Some(Long("version") | Short('V')) => {
                console.print(concat!("rust-ota-artifact ", env!("CARGO_PKG_VERSION"), "\n"))
            }
            // As in mender-artifact; one behind the command goes before it.
            Some(Long("compression")) => {
                console.compression = Some(args::text(&mut parser)?);
                continue;
            }
            Some(Value(command)) => match command.to_str() {
                Some("write") => write::run(parser, console),
                Some("delta") => delta::run(parser, console),
                Some("read") => read::run(parser, console),
                Some("validate") => validate::run(parser, console),
                Some("sign") => sign::run(parser, console),
                Some("modify") => edit::modify(parser, console),
                Some("cp") => edit::cp(parser, console),
                Some("cat") => edit::cat(parser, console),
                Some("install") => edit::install(parser, console),
                Some("rm") => edit::rm(parser, console),
                Some("keygen") => keygen::run(parser, console),
                Some("frames") => frames::run(parser, console),
                Some("dump") => dump::run(parser, console),
                Some("help" | "h") => console.print(&help::of_program(&PROGRAM)),
                _ => Err(Failure::usage(format!("no command {command:?}; see --help"))),
            },
            Some(other @ (Long(_) | Short(_))) => Err(other.unexpected().into()),
        };
    }
}

impl Console<'_> {
    fn print(&mut self, text: &str) -> Result<(), Failure> {
        self.out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush())
            .map_err(|error| Failure::io("write to the standard output", error))
    }

    /// All about a command.
    fn help(&mut self, name: &str) -> Result<(), Failure> {
        self.help_of(&[name])
    }

    /// All about the command that these words lead to.
    fn help_of(&mut self, path: &[&str]) -> Result<(), Failure> {
        let command = PROGRAM.all_commands().into_iter().find(|(known, _)| known == path);
        let (_, command) = command.ok_or_else(|| Failure::usage(format!("nothing is known of {path:?}")))?;
        self.print(&help::of_command(&PROGRAM, command))
    }

    /// Something worth knowing that does not stop the command.
    fn warn(&mut self, text: &str) {
        // A warning that cannot be shown is no reason to fail.
        let _ = writeln!(self.err, "rust-ota-artifact: warning: {}", printable(text));
    }
}

#[cfg(test)]
mod tests {
    use manual::check;

    use super::*;

    /// An option that no command has: what is complained of first stands in front of it.
    const STRANGER: &str = "--no-program-has-this";

    /// The exit code, what is printed, and what is said.
    fn typed(words: impl IntoIterator<Item = String>) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = exit_code(words.into_iter().map(OsString::from), &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn every_option_that_is_described_is_taken_and_no_other() {
        let takes = |path: &[&str], options: &[String]| {
            let words = path.iter().map(|word| (*word).to_owned()).chain(options.iter().cloned());
            let (code, _, said) = typed(words.chain([STRANGER.to_owned()]));
            code == 0 || said.contains(STRANGER)
        };
        let says = |words: &[String]| typed(words.iter().cloned()).2;
        let knows = |word: &str| !typed([word.to_owned(), STRANGER.to_owned()]).2.contains("no command");
        let parser =
            check::Parser { takes: &takes, says: &says, knows: &knows, value: &|_| None, leaves_out: &[] };
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        assert_eq!(check::differences(&PROGRAM, &source, &parser).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn every_command_prints_the_help_that_is_described() {
        let printed = |words: &[&str]| typed(words.iter().map(|word| (*word).to_owned()));
        for words in [["--help"], ["-h"], ["help"], ["h"]] {
            assert_eq!(printed(&words), (0, help::of_program(&PROGRAM), String::new()));
        }
        for (path, command) in PROGRAM.all_commands() {
            let expected = (0, help::of_command(&PROGRAM, command), String::new());
            for option in ["--help", "-h"] {
                assert_eq!(printed(&[&path[..], &[option]].concat()), expected, "{path:?}");
            }
        }
    }
}
