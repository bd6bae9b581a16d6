//! The command line, as it is typed.

use std::ffi::OsString;

use lexopt::prelude::*;
use manual::help;
use manual::rust_ota_server::PROGRAM;

use crate::console::{CliError, help_of, print};
use crate::{ask, load, measure, seed, serve, simulate, transfer};

/// Does what was typed.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<(), CliError> {
    match parser.next()? {
        None | Some(Short('h') | Long("help")) => print(&help::of_program(&PROGRAM)),
        Some(Long("version")) => print(concat!("rust-ota-server ", env!("CARGO_PKG_VERSION"), "\n")),
        Some(Value(command)) => command_named(&command, parser),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn command_named(command: &OsString, parser: lexopt::Parser) -> Result<(), CliError> {
    let name = command.to_string_lossy();
    match &*name {
        "serve" => serve::run(parser),
        "move" => transfer::run_move(parser),
        "backup" => transfer::run_backup(parser),
        "load" => load::run(parser),
        "measure" => measure::run(parser),
        "openapi" => openapi(parser),
        "seed" => seed::run(parser),
        "simulate" => simulate::run(parser),
        name => ask::run(name, parser)
            .unwrap_or_else(|| Err(CliError::Failed(format!("there is no command {name} (try --help)")))),
    }
}

/// Prints the description of the API.
fn openapi(mut parser: lexopt::Parser) -> Result<(), CliError> {
    match parser.next()? {
        None => print(&server_core::openapi()),
        Some(Short('h') | Long("help")) => help_of("openapi"),
        Some(other) => Err(other.unexpected().into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use manual::check;

    use super::*;

    /// An option that no command has: what is complained of first stands in front of it.
    const STRANGER: &str = "--no-program-has-this";

    #[test]
    fn every_option_that_is_described_is_taken_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let faults = file("faults", b"[]");
        let key = file("key", artifact::Signer::generate_ecdsa_p256().unwrap().private.as_bytes());
        let typed = |words: Vec<String>| {
            let said = run(lexopt::Parser::from_args(words)).err();
            said.map(|error| error.to_string()).unwrap_or_default()
        };
        let takes = |path: &[&str], options: &[String]| {
            if path.is_empty() {
                // There is no command that something could be complained of behind it.
                return typed(options.to_vec()).is_empty();
            }
            let words = path.iter().map(|word| (*word).to_owned()).chain(options.iter().cloned());
            typed(words.chain([STRANGER.to_owned()]).collect()).contains(STRANGER)
        };
        let value = |flag: &manual::Flag| match flag.long {
            "configuration-key" | "delta-key" => Some(key.clone()),
            "delta-command" => std::env::current_exe().unwrap().to_str().map(str::to_owned),
            "polls" | "inventories" => Some("full".to_owned()),
            "smtp" => Some("smtp://host".to_owned()),
            "mail-from" => Some("a@b.example".to_owned()),
            "database" => Some("postgres://user@host/name".to_owned()),
            _ => flag.value.filter(|value| value.kind == manual::Kind::File).map(|_| faults.clone()),
        };
        let parser = check::Parser {
            takes: &takes,
            says: &|words| typed(words.to_vec()),
            knows: &|word| {
                !typed(vec![word.to_owned(), STRANGER.to_owned()]).starts_with("there is no command")
            },
            value: &value,
            // They print: the tests of the program start it.
            leaves_out: &["help", "version"],
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        assert_eq!(check::differences(&PROGRAM, &source, &parser).unwrap(), Vec::<String>::new());
    }
}
