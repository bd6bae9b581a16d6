//! The host tool `rust-ota-artifact`: writes, reads, checks and signs artifacts.
//!
//! Options are named as in `mender-artifact` where they mean the same. What an artifact is, and every rule about it,
//! is in `client_core::artifact`; here are files, options and text.
#![forbid(unsafe_code)]

mod args;
mod dump;
mod failure;
mod keygen;
mod keys;
mod output;
mod progress;
mod read;
mod sign;
mod tree;
mod validate;
mod write;

use failure::Failure;
use std::ffi::OsString;
use std::io::Write;

const HELP: &str = "\
Usage: rust-ota-artifact COMMAND [OPTION]... [ARTIFACT]

Commands:
  write rootfs-image         write an artifact with a root file system
  write module-image         write an artifact for an update module
  write bootstrap-artifact   write an artifact without a payload
  read                       print what an artifact says
  validate                   check an artifact completely
  sign                       sign an artifact
  keygen                     make a key pair for signing
  dump                       write the parts of an artifact to folders

  COMMAND --help             the options of a command
  --version                  the version of this program
";

/// What every command writes to.
struct Console<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

/// Runs the program with these arguments, without the program's name. Returns whether it succeeded; if not, it has said
/// why on `err`.
pub fn run(args: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> bool {
    let mut console = Console { out, err };
    let parser = lexopt::Parser::from_args(args);
    match command(parser, &mut console) {
        Ok(()) => true,
        Err(failure) => {
            // There is no other place left to say it.
            let _ = writeln!(console.err, "rust-ota-artifact: {failure}");
            false
        }
    }
}

fn command(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    match parser.next()? {
        None => Err(Failure::usage("no command; see --help")),
        Some(Long("help") | Short('h')) => console.print(HELP),
        Some(Long("version") | Short('V')) => {
            console.print(concat!("rust-ota-artifact ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        Some(Value(command)) => match command.to_str() {
            Some("write") => write::run(parser, console),
            Some("read") => read::run(parser, console),
            Some("validate") => validate::run(parser, console),
            Some("sign") => sign::run(parser, console),
            Some("keygen") => keygen::run(parser, console),
            Some("dump") => dump::run(parser, console),
            Some("help") => console.print(HELP),
            _ => Err(Failure::usage(format!("no command {command:?}; see --help"))),
        },
        Some(other @ (Long(_) | Short(_))) => Err(other.unexpected().into()),
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
        let _ = writeln!(self.err, "rust-ota-artifact: warning: {text}");
    }
}
