//! `read`: prints what an artifact says. Whatever comes from the artifact is made printable value by value.

use crate::failure::Failure;
use crate::{Console, args, delta, keys, source, validate};
use artifact::frames::FramesInfo;
use artifact::text::{printable, printable_json};
use artifact::{Artifact, Header, SignatureStatus, Trust};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

pub(crate) fn run(mut parser: lexopt::Parser, console: &mut Console<'_>) -> Result<(), Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let (mut paths, mut path) = (Vec::new(), None);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return console.help("read"),
            Long("key") | Short('k') => paths.push(args::path(&mut parser)?),
            Long("no-progress") => {}
            Long(option) if keys::is_elsewhere(option) => return Err(keys::elsewhere(option)),
            Value(value) => args::once(&mut path, PathBuf::from(value), "the artifact")?,
            Long(_) | Short(_) => return Err(arg.unexpected().into()),
        }
    }
    let path = path.ok_or_else(|| Failure::usage("read needs an artifact"))?;
    let file = source::open(&path, None).map_err(Failure::cannot_open)?;
    let untrusted = || validate::read(&path, source::again(&file)?, &Trust::DangerUnsigned);
    let (artifact, refused) = match paths.is_empty() {
        true => (untrusted()?, None),
        false => match validate::read(&path, source::again(&file)?, &keys::trust(&paths)?) {
            Ok(artifact) => (artifact, None),
            // What it says is of use for finding out why; that it is not trusted is said with it.
            Err(refused) => (untrusted()?, Some(refused)),
        },
    };
    let signature = match (&artifact.header.signature, &refused) {
        (SignatureStatus::Unsigned, _) => "no signature",
        (_, Some(_)) => "signed; verification using provided key failed",
        (SignatureStatus::Verified { .. }, None) => "signed and verified correctly",
        (_, None) => {
            "signed but no key for verification provided; please use `-k` option for providing verification key"
        }
    };
    let mut text = describe(&artifact.header, signature);
    text.push_str(&describe_files(artifact).map_err(|error| Failure::artifact(&path, error))?);
    console.print(&text)?;
    refused.map_or(Ok(()), Err)
}

fn describe(header: &Header, signature: &str) -> String {
    let mut text = String::new();
    let list = |values: &Option<Vec<String>>| format!("[{}]", joined(values.as_deref().unwrap_or_default()));
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "Mender artifact:\n  Name: {}\n  Format: mender\n  Version: {}\n  Signature: {signature}\n  \
         Compatible devices: '[{}]'\n  Provides group: {}\n  Depends on one of artifact(s): {}\n  \
         Depends on one of group(s): {}\n  State scripts:\n",
        printable(header.artifact_name.as_str()),
        header.format_version,
        joined(&header.depends.device_type),
        printable(header.artifact_group.as_deref().unwrap_or_default()),
        list(&header.depends.artifact_name),
        list(&header.depends.artifact_group),
    );
    for script in &header.scripts {
        let _ = writeln!(text, "    {}", printable(&script.name));
    }
    let payload_type = header.payload.as_ref().map_or("Empty type", |payload| payload.payload_type.as_str());
    let _ = writeln!(text, "\nUpdates:\n    0:\n    Type:   {}", printable(payload_type));
    text.push_str(&describe_map("Provides", header.provides.as_ref()));
    let depends: BTreeMap<String, String> = header
        .depends
        .type_info
        .iter()
        .map(|(key, values)| match values.as_slice() {
            [one] => (key.clone(), one.clone()),
            many => (key.clone(), format!("[{}]", joined(many))),
        })
        .collect();
    text.push_str(&describe_map("Depends", Some(&depends)));
    if let Some(clears) = &header.clears_provides {
        let clears: Vec<String> =
            clears.iter().map(|pattern| format!("\"{}\"", printable(pattern))).collect();
        let _ = writeln!(text, "    Clears Provides: [{}]", clears.join(", "));
    }
    let meta_data = header.payload.as_ref().and_then(|payload| payload.meta_data.as_deref());
    if payload_type == delta::PAYLOAD_TYPE {
        text.push_str(&delta::describe(meta_data.unwrap_or_default()));
    }
    match meta_data.map(pretty) {
        None => text.push_str("    Metadata: Nothing\n"),
        Some(meta_data) => {
            text.push_str("    Metadata:\n");
            meta_data.lines().for_each(|line| {
                let _ = writeln!(text, "\t{}", printable_json(line));
            });
        }
    }
    if let Some(frames) = FramesInfo::of(header) {
        let _ = writeln!(text, "    Frames: independent, with a table of {} bytes", frames.table_bytes);
    }
    text
}

fn joined(values: &[impl Borrow<str>]) -> String {
    printable(&values.join(" ")).into_owned()
}

fn describe_map(title: &str, map: Option<&BTreeMap<String, String>>) -> String {
    let Some(map) = map.filter(|map| !map.is_empty()) else { return format!("    {title}: Nothing\n") };
    let lines: String =
        map.iter().map(|(key, value)| format!("\t{}: {}\n", printable(key), printable(value))).collect();
    format!("    {title}:\n{lines}")
}

fn pretty(json: &str) -> String {
    let value = serde_json::from_str::<serde_json::Value>(json);
    value.and_then(|value| serde_json::to_string_pretty(&value)).unwrap_or_else(|_| json.to_owned())
}

fn describe_files(mut artifact: Artifact) -> Result<String, artifact::ArtifactError> {
    let mut text = String::new();
    while let Some(file) = artifact.payload.next_file()? {
        let _ = write!(
            text,
            "      name:     {}\n      size:     {}\n      checksum: {}\n",
            printable(file.name()),
            file.size(),
            file.expected_sha256()
        );
    }
    match text.is_empty() {
        true => Ok("    Files: None\n".to_owned()),
        false => Ok(format!("    Files:\n{text}")),
    }
}
