//! `keygen`: a new key pair.

use crate::Console;
use crate::args;
use crate::failure::Failure;
use crate::keys;
use crate::output::{Mode, Output};
use artifact::Signer;
use std::path::PathBuf;

pub(crate) fn run(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let (mut output, mut kind, mut force) = (None, None, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return console.help("keygen"),
            Long("output-path") | Short('o') => {
                args::once(&mut output, args::path(&mut parser)?, "--output-path")?;
            }
            Long("type") | Short('T') => args::once(&mut kind, args::text(&mut parser)?, "--type")?,
            Long("force") | Short('f') => force = true,
            Long(_) | Short(_) | Value(_) => return Err(arg.unexpected().into()),
        }
    }
    let private: PathBuf = output.ok_or_else(|| Failure::usage("keygen needs --output-path"))?;
    let mut public = private.clone().into_os_string();
    public.push(".pub");
    let public = PathBuf::from(public);
    let is_file = Output::is_file(&private);
    for path in [&private, &public] {
        if is_file && !force && path.symlink_metadata().is_ok() {
            return Err(Failure::usage(format!("{} exists; --force replaces it", path.display())));
        }
    }
    let pair = match kind.as_deref().unwrap_or("ecdsa-p256") {
        "ed25519" => Signer::generate_ed25519(&keys::random()?),
        "ecdsa-p256" => Signer::generate_ecdsa_p256().map_err(|error| Failure::key(&private, error))?,
        other => {
            return Err(Failure::usage(format!("no key type {other:?}; there are ecdsa-p256 and ed25519")));
        }
    };
    if !is_file {
        let both = pair.private + &pair.public;
        return Output::put(&private, Mode::Always(0o600), both.as_bytes(), console.out);
    }
    Output::put(&private, Mode::Always(0o600), pair.private.as_bytes(), console.out)?;
    Output::put(&public, Mode::New(0o644), pair.public.as_bytes(), console.out)
}
