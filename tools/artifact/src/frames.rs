//! `frames`: what the frame table of an artifact holds, and what a device would fetch of it that has a certain image.

use crate::failure::Failure;
use crate::{Console, args, source};
use artifact::frames::{Found, FrameTable, FramesInfo};
use artifact::text::printable;
use artifact::{HEAD_BYTES, Limits, Places, Trust};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) fn run(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let (mut path, mut running, mut target, mut json) = (None, None, None, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return console.help("frames"),
            Long("running") => args::once(&mut running, args::path(&mut parser)?, "--running")?,
            Long("target") => args::once(&mut target, args::path(&mut parser)?, "--target")?,
            Long("json") => json = true,
            Value(value) => args::once(&mut path, PathBuf::from(value), "the artifact")?,
            Long(_) | Short(_) => return Err(arg.unexpected().into()),
        }
    }
    let path: PathBuf = path.ok_or_else(|| Failure::usage("frames needs an artifact"))?;
    let file = source::open(&path, None)?;
    let (table, sizes) = table(&path, file)?;
    let mut found = Found::nothing(&table);
    if let Some(running) = &running {
        let (image, length) = image(running)?;
        found.look_anywhere(&table, length, &mut |offset, part| image.read_exact_at(part, offset).is_ok());
    }
    if let Some(target) = &target {
        let (image, _) = image(target)?;
        found.look_in_place(&table, &mut |offset, part| image.read_exact_at(part, offset).is_ok());
    }
    let runs = found.runs(&table);
    let frames: u64 = runs.iter().map(|run| run.end - run.start).sum();
    let fetched = HEAD_BYTES.min(sizes.artifact) + sizes.table + frames;
    let image = table.image_bytes();
    let (block, count) = (table.block_bytes(), table.frames().len());
    if json {
        let said = serde_json::json!({
            "artifact_bytes": sizes.artifact,
            "image_bytes": image,
            "block_bytes": block,
            "frames": count,
            "table_bytes": sizes.table,
            "fetched_bytes": fetched,
            "requests": runs.len() + 2,
        });
        return console.print(&format!("{said}\n"));
    }
    let percent = 100.0 * fetched as f64 / sizes.artifact as f64;
    let shown = path.display().to_string();
    console.print(&format!(
        "{}: {} bytes; an image of {image} bytes in {count} frames, blocks of {block} bytes, a table of {} bytes\n\
         fetched: {fetched} bytes ({percent:.1} %) in {} requests\n",
        printable(&shown),
        sizes.artifact,
        sizes.table,
        runs.len() + 2
    ))
}

struct Sizes {
    artifact: u64,
    table: u64,
}

fn table(path: &Path, file: File) -> Result<(FrameTable, Sizes), Failure> {
    let measured = file.metadata().map_err(|error| Failure::io("measure the artifact", error))?;
    let places = Box::new(InFile { file: Arc::new(file), length: measured.len() });
    let wrong = |error| Failure::artifact(path, error);
    // What is not trusted may be looked at.
    let mut artifact =
        artifact::open_at_places(places, &Trust::DangerUnsigned, &Limits::default()).map_err(wrong)?;
    let none = || Failure::usage(format!("{} has no frame table; write it with --frames", path.display()));
    let info = FramesInfo::of(&artifact.header).ok_or_else(none)?;
    let image = artifact.payload.next_file().map_err(wrong)?.ok_or_else(none)?;
    let member = image.member().ok_or_else(none)?;
    let table = info
        .table(&member, image.size())
        .map_err(|error| Failure::io(format_args!("read the frame table of {}", path.display()), error))?;
    Ok((table, Sizes { artifact: measured.len(), table: info.table_bytes }))
}

fn image(path: &Path) -> Result<(File, u64), Failure> {
    let file = source::open(path, None)?;
    let length = file.metadata().map_err(|error| Failure::io("measure the image", error))?.len();
    Ok((file, length))
}

/// A file, by place.
struct InFile {
    file: Arc<File>,
    length: u64,
}

impl Places for InFile {
    fn open_at(&mut self, offset: u64, end: Option<u64>) -> io::Result<Box<dyn Read + Send>> {
        let end = end.unwrap_or(self.length).min(self.length);
        Ok(Box::new(Part { file: Arc::clone(&self.file), offset, end }))
    }

    fn can_jump(&self) -> bool {
        true
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(self.length)
    }
}

struct Part {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
