//! `validate`: everything a device would check, and whether the archive is complete.

use crate::failure::Failure;
use crate::progress::Progress;
use crate::{Console, args, keys, source};
use artifact::text::printable;
use artifact::{self, Artifact, Limits, SignatureStatus, Trust};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub(crate) fn run(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let (mut paths, mut path, mut visible) = (Vec::new(), None, true);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return console.help("validate"),
            Long("key") | Short('k') => paths.push(args::path(&mut parser)?),
            Long("no-progress") => visible = false,
            Long(option) if keys::is_elsewhere(option) => return Err(keys::elsewhere(option)),
            Value(value) => args::once(&mut path, PathBuf::from(value), "the artifact")?,
            Long(_) | Short(_) => return Err(arg.unexpected().into()),
        }
    }
    let path = path.ok_or_else(|| Failure::usage("validate needs an artifact"))?;
    let trust = if paths.is_empty() { Trust::DangerUnsigned } else { keys::trust(&paths)? };
    let file = source::open(&path, None).map_err(Failure::cannot_open)?;
    check(&path, file, &trust, visible).map_err(Failure::invalid)?;
    let shown = path.display().to_string();
    console.print(&format!("Artifact file '{}' validated successfully\n", printable(&shown)))
}

fn check(path: &Path, file: File, trust: &Trust, visible: bool) -> Result<(), Failure> {
    let artifact = read(path, file, trust)?;
    if artifact.header.signature == SignatureStatus::NotChecked {
        let path = path.display();
        return Err(Failure::usage(format!("{path}: signed, and no key to verify it with: use -k")));
    }
    drain(path, artifact, visible)
}

/// Reads an artifact up to its payload.
pub(crate) fn read(path: &Path, file: File, trust: &Trust) -> Result<Artifact, Failure> {
    artifact::open(file, trust, &Limits::default()).map_err(|error| Failure::artifact(path, error))
}

/// Reads the payload to its end.
pub(crate) fn drain(path: &Path, mut artifact: Artifact, visible: bool) -> Result<(), Failure> {
    let mut buffer = vec![0; 256 * 1024];
    let wrong = |error| Failure::artifact(path, error);
    while let Some(file) = artifact.payload.next_file().map_err(wrong)? {
        let progress = if visible { Progress::new(file.size()) } else { Progress::hidden() };
        let mut file = progress.count(file);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(wrong(artifact::ArtifactError::from_io(error))),
            }
        }
    }
    Ok(())
}
