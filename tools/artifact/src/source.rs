//! Artifacts and images that are read: files, and what can be read only once, such as the standard input.

use crate::failure::Failure;
use crate::output::{self, STANDARD};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;

/// Opens a file that can be read from its start as often as is wanted: what cannot is put into a temporary file
/// first, in `folder` if one is named.
pub(crate) fn open(path: &Path, folder: Option<&Path>) -> Result<File, Failure> {
    let failed = |error| Failure::io(format_args!("open {}", path.display()), error);
    let mut source: Box<dyn io::Read> = if path == Path::new(STANDARD) {
        Box::new(io::stdin())
    } else {
        let file = File::open(path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?.file_type();
        if kind.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        if kind.is_file() {
            return Ok(file);
        }
        Box::new(file)
    };
    let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
    let mut copy = output::scratch(Some(&folder), path)?;
    let copied = io::copy(&mut source, &mut copy).and_then(|_| copy.seek(SeekFrom::Start(0)));
    copied.map_err(|error| Failure::io(format_args!("read {}", path.display()), error))?;
    Ok(copy)
}

/// The same file from its start, for another reader.
pub(crate) fn again(file: &File) -> Result<File, Failure> {
    let rewound = file.try_clone().and_then(|mut file| file.seek(SeekFrom::Start(0)).map(|_| file));
    rewound.map_err(|error| Failure::io("read the artifact again", error))
}
