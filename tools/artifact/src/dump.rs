//! `dump`: writes the parts of an artifact to folders, and the command that would put them together again.

use crate::failure::Failure;
use crate::output::{Mode, Output};
use crate::{Console, args, source, validate};
use artifact::text::printable;
use artifact::{Artifact, ArtifactError, Header, Trust};
use std::borrow::Cow;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

pub(crate) fn run(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let (mut scripts, mut meta_data, mut files) = (None, None, None);
    let (mut path, mut separator) = (None, None);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return console.help("dump"),
            Long("scripts") => args::once(&mut scripts, args::path(&mut parser)?, "--scripts")?,
            Long("meta-data") => args::once(&mut meta_data, args::path(&mut parser)?, "--meta-data")?,
            Long("files") => args::once(&mut files, args::path(&mut parser)?, "--files")?,
            Long("print-cmdline") => separator = Some(' '),
            Long("print0-cmdline") => separator = Some('\0'),
            Value(value) => args::once(&mut path, PathBuf::from(value), "the artifact")?,
            Long(_) | Short(_) => return Err(arg.unexpected().into()),
        }
    }
    let path: PathBuf = path.ok_or_else(|| Failure::usage("dump needs an artifact"))?;
    let mut artifact = validate::read(&path, source::open(&path, None)?, &Trust::DangerUnsigned)?;
    let mut command = command_line(&artifact.header)?;
    let mut written = Vec::new();
    if let Some(folder) = &scripts {
        for script in &artifact.header.scripts {
            let target = folder.join(&script.name);
            let content = &mut script.content.as_slice();
            written.push(put(&target, 0o755, content, console).map_err(|f| f.at(&path, &target))?);
            command.extend(["--script".to_owned(), target.display().to_string()]);
        }
    }
    let json = artifact.header.payload.as_ref().and_then(|payload| payload.meta_data.as_deref());
    if let (Some(folder), Some(json)) = (&meta_data, json) {
        let target = folder.join("0000.meta-data");
        written.push(put(&target, 0o644, &mut json.as_bytes(), console).map_err(|f| f.at(&path, &target))?);
        command.extend(["--meta-data".to_owned(), target.display().to_string()]);
    }
    dump_files(&path, &mut artifact, files.as_deref(), &mut written, &mut command, console)?;
    // Both archives have ended properly and every checksum was right.
    for output in written {
        output.finish()?;
    }
    match separator {
        None => Ok(()),
        Some(' ') => {
            let words: Vec<Cow<'_, str>> = command.iter().map(|word| quoted(word)).collect();
            console.print(&format!("{}\n", words.join(" ")))
        }
        Some(separator) => console.print(&command.iter().fold(String::new(), |mut text, argument| {
            text.push_str(argument);
            text.push(separator);
            text
        })),
    }
}

fn dump_files(
    path: &Path,
    artifact: &mut Artifact,
    folder: Option<&Path>,
    written: &mut Vec<Output>,
    command: &mut Vec<String>,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    while let Some(mut file) = artifact.payload.next_file().map_err(|error| Failure::artifact(path, error))? {
        let Some(folder) = folder else { continue };
        let target = folder.join(file.name());
        written.push(put(&target, 0o644, &mut file, console).map_err(|failed| failed.at(path, &target))?);
        command.extend(["--file".to_owned(), target.display().to_string()]);
    }
    Ok(())
}

/// Which end of a copy failed; the last has its words already.
enum CopyFailure {
    Reading(io::Error),
    Writing(io::Error),
    Naming(Failure),
}

impl CopyFailure {
    fn at(self, artifact: &Path, target: &Path) -> Failure {
        match self {
            CopyFailure::Reading(error) => Failure::artifact(artifact, ArtifactError::from_io(error)),
            CopyFailure::Writing(error) => Failure::io(format_args!("write {}", target.display()), error),
            CopyFailure::Naming(failure) => failure,
        }
    }
}

fn put(
    target: &Path,
    mode: u32,
    source: &mut dyn Read,
    console: &mut Console<'_>,
) -> Result<Output, CopyFailure> {
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(CopyFailure::Writing)?;
    }
    let mut output = Output::create(target, Mode::New(mode)).map_err(CopyFailure::Naming)?;
    let mut writer = output.writer(console.out);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match source.read(&mut buffer).map_err(CopyFailure::Reading)? {
            0 => break,
            count => {
                writer.write_all(buffer.get(..count).unwrap_or_default()).map_err(CopyFailure::Writing)?
            }
        }
    }
    drop(writer);
    output.sync(console.out).map_err(CopyFailure::Naming)?;
    Ok(output)
}

/// A word as a shell reads it back: in quotes where it has to be, and in those that spell control characters.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:/=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    if matches!(printable(word), Cow::Borrowed(_)) {
        return Cow::Owned(format!("'{}'", word.replace('\'', "'\\''")));
    }
    let mut text = String::from("$'");
    for c in word.chars() {
        match printable(c.encode_utf8(&mut [0; 4])) {
            _ if c == '\'' || c == '\\' => text.extend(['\\', c]),
            Cow::Borrowed(_) => text.push(c),
            Cow::Owned(_) => {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
            }
        }
    }
    text.push('\'');
    Cow::Owned(text)
}

/// Everything but scripts, meta-data and files, which are named where they are dumped.
fn command_line(header: &Header) -> Result<Vec<String>, Failure> {
    let kind = if header.payload.is_some() { "module-image" } else { "bootstrap-artifact" };
    let mut command = vec!["write".to_owned(), kind.to_owned()];
    let mut option = |name: &str, value: &str| command.extend([format!("--{name}"), value.to_owned()]);
    option("artifact-name", header.artifact_name.as_str());
    header.artifact_group.iter().for_each(|group| option("provides-group", group));
    let names = header.depends.artifact_name.iter().flatten();
    names.for_each(|name| option("artifact-name-depends", name));
    header.depends.device_type.iter().for_each(|name| option("device-type", name.as_str()));
    header.depends.artifact_group.iter().flatten().for_each(|group| option("depends-groups", group));
    if let Some(payload) = &header.payload {
        option("type", payload.payload_type.as_str());
    }
    for (key, value) in header.provides.iter().flatten() {
        option("provides", &format!("{key}:{value}"));
    }
    for (key, values) in &header.depends.type_info {
        let [value] = values.as_slice() else {
            return Err(Failure::usage(format!("no option expresses that {key} depends on one of several")));
        };
        option("depends", &format!("{key}:{value}"));
    }
    header.clears_provides.iter().flatten().for_each(|pattern| option("clears-provides", pattern));
    if header.payload.is_some() {
        command.extend(["--no-default-software-version", "--no-default-clears-provides"].map(str::to_owned));
    }
    Ok(command)
}
