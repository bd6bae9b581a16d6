//! `sign`: puts a signature into an artifact.

use crate::failure::Failure;
use crate::output::{Mode, Output};
use crate::{Console, args, keys, source, validate};
use artifact::{Limits, SignatureStatus, Trust, write};
use std::io::BufWriter;
use std::path::PathBuf;

pub(crate) fn run(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let (mut key, mut output, mut path, mut force) = (None, None, None, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return console.help("sign"),
            Long("key") | Short('k') => args::once(&mut key, args::path(&mut parser)?, "--key")?,
            Long("output-path") | Short('o') => {
                args::once(&mut output, args::path(&mut parser)?, "--output-path")?;
            }
            Long("force") | Short('f') => force = true,
            Long(option) if keys::is_elsewhere(option) => return Err(keys::elsewhere(option)),
            Value(value) => args::once(&mut path, PathBuf::from(value), "the artifact")?,
            Long(_) | Short(_) => return Err(arg.unexpected().into()),
        }
    }
    let path = path.ok_or_else(|| Failure::usage("sign needs an artifact"))?;
    let signer = keys::signer(&key.ok_or_else(|| Failure::usage("sign needs --key"))?)?;
    warn_of_ed25519(signer.kind(), console);

    // Nothing is signed that a device would refuse.
    let file = source::open(&path, None)?;
    let artifact = validate::read(&path, source::again(&file)?, &Trust::DangerUnsigned)?;
    if artifact.header.signature != SignatureStatus::Unsigned && !force {
        return Err(Failure::usage(format!("{}: signed already; --force signs it again", path.display())));
    }
    validate::drain(&path, artifact, true)?;

    let target = output.unwrap_or_else(|| path.clone());
    let mut output = Output::create(&target, Mode::New(0o644))?;
    let mut buffer = BufWriter::new(output.writer(console.out));
    write::sign(source::again(&file)?, &signer, &Limits::default(), &mut buffer)
        .map_err(|error| Failure::artifact(&path, error))?;
    drop(buffer);
    output.commit(console.out)
}

/// Other clients refuse what they do not know.
pub(crate) fn warn_of_ed25519(kind: &str, console: &mut Console<'_>) {
    if kind == "Ed25519" {
        console.warn("Mender clients do not know Ed25519 signatures; only this project's client does");
    }
}
