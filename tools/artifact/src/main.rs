//! The program: everything is in the library, so that tests can call it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    ExitCode::from(rust_ota_artifact::exit_code(std::env::args_os().skip(1), &mut out, &mut err))
}
