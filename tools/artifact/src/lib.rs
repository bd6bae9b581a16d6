//! The host tool `rust-ota-artifact`: writes, reads, checks, signs and changes artifacts.
//!
//! Options are named as in `mender-artifact` where they mean the same. What an artifact is, and every rule about it,
//! is in `artifact`; here are files, options and text.
#![forbid(unsafe_code)]

mod args;
mod dump;
mod edit;
mod failure;
mod filesystem;
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
use std::ffi::OsString;
use std::io::Write;

const HELP: &str = "\
Usage: rust-ota-artifact [--compression NAME] COMMAND [OPTION]... [ARTIFACT]

Making artifacts:
  write rootfs-image         write an artifact with a root file system
  write single-file          write an artifact with one file and where it goes
  write directory            write an artifact with a directory tree and where it goes
  write script               write an artifact with programs that are run once
  write module-image         write an artifact for an update module
  write bootstrap-artifact   write an artifact without a payload
  keygen                     make a key pair for signing

Looking at artifacts:
  read                       print what an artifact says
  validate                   check an artifact completely
  dump                       write the parts of an artifact to folders

Changing artifacts:
  sign                       sign an artifact
  modify                     change what an artifact says, and the client's configuration in its root file system
  cp                         copy a file into the root file system of an artifact, or out of it
  cat                        print a file from there
  install                    copy a file there with a mode, or make a directory
  rm                         remove a file or directory there

  COMMAND --help             the options of a command
  --version                  the version of this program

An artifact, an image or a result called - is the standard input or output.
";

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
            Some(Long("help") | Short('h')) => console.print(HELP),
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
                Some("read") => read::run(parser, console),
                Some("validate") => validate::run(parser, console),
                Some("sign") => sign::run(parser, console),
                Some("modify") => edit::modify(parser, console),
                Some("cp") => edit::cp(parser, console),
                Some("cat") => edit::cat(parser, console),
                Some("install") => edit::install(parser, console),
                Some("rm") => edit::rm(parser, console),
                Some("keygen") => keygen::run(parser, console),
                Some("dump") => dump::run(parser, console),
                Some("help" | "h") => console.print(HELP),
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

    /// Something worth knowing that does not stop the command.
    fn warn(&mut self, text: &str) {
        // A warning that cannot be shown is no reason to fail.
        let _ = writeln!(self.err, "rust-ota-artifact: warning: {}", printable(text));
    }
}
