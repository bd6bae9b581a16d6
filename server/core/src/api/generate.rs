//! Artifacts that are made here, of one file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use artifact::write::{self, ArtifactSpec, PayloadSource, SINGLE_FILE, SoftwareName};
use artifact::{ArtifactName, Compression, CompressionLevel, DeviceType, InvalidName};
use hyper::body::{Bytes, Incoming};
use serde::Deserialize;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::artifacts::{Field, Form, Keeper};
use super::{ApiError, Call, Reply, Shared, audit, permit, reply};
use crate::blobs::intake::Intake;
use crate::domain::id;

/// Pieces of the artifact between its writer and its reader.
const PIECES: usize = 4;
/// Files of this payload that are not the file.
const RESERVED: [&str; 3] = ["dest_dir", "filename", "permissions"];

/// What is asked for.
#[derive(Default)]
struct Asked {
    name: String,
    description: String,
    device_types: Vec<String>,
    payload_type: String,
    args: Option<String>,
}

/// What is said about the file.
#[derive(Debug, Default, Deserialize)]
struct Args {
    filename: Option<String>,
    #[serde(default)]
    dest_dir: String,
    software_filesystem: Option<String>,
    software_name: Option<String>,
    software_version: Option<String>,
}

pub(super) async fn take(shared: &Shared, call: &Call, body: Incoming) -> Result<Reply, ApiError> {
    let _place = shared.place_for_upload().await?;
    let mut form = Form::of(shared, call, body, "file")?;
    let mut asked = Asked::default();
    while let Some(mut field) = form.next().await? {
        match field.name().as_str() {
            "name" => asked.name = field.text().await?,
            "description" => asked.description = field.text().await?,
            "device_types_compatible" => {
                let text = field.text().await?;
                let kinds = text.split(',').map(str::trim).filter(|kind| !kind.is_empty());
                asked.device_types.extend(kinds.map(str::to_owned));
            }
            "type" => asked.payload_type = field.text().await?,
            "args" => asked.args = Some(field.text().await?),
            // It is the last one: what comes behind it is not looked at.
            "file" => {
                let plan = match plan(&asked, field.file_name()) {
                    Ok(plan) => plan,
                    Err(error) => {
                        field.drop_rest().await;
                        return Err(error);
                    }
                };
                let id = make(shared, call, plan, &mut field).await?;
                return Ok(reply::created(&format!("./management/v1/deployments/artifacts/{id}")));
            }
            _ => {
                field.text().await?;
            }
        }
    }
    Err(ApiError::bad_request("the form has no field file"))
}

/// What is to be made.
struct Plan {
    spec: ArtifactSpec,
    lines: Vec<Line>,
    file_name: String,
    description: String,
}

fn plan(asked: &Asked, uploaded: Option<String>) -> Result<Plan, ApiError> {
    let wrong = |reason: &str| ApiError::bad_request(reason);
    if asked.payload_type != "single_file" {
        return Err(wrong("type: only single_file can be made"));
    }
    if asked.device_types.is_empty() {
        return Err(wrong("device_types_compatible: there is none"));
    }
    let args: Args = match asked.args.as_deref().filter(|text| !text.trim().is_empty()) {
        None => Args::default(),
        Some(text) => serde_json::from_str(text).map_err(|error| wrong(&format!("args: {error}")))?,
    };
    let file_name = args.filename.filter(|name| !name.is_empty()).or(uploaded).unwrap_or_default();
    let is_plain = |name: &str| !name.contains(['/', '\0', '\n']) && !matches!(name, "" | "." | "..");
    if !is_plain(&file_name) || RESERVED.contains(&file_name.as_str()) {
        return Err(wrong("args: filename is no name of a file"));
    }
    if !args.dest_dir.starts_with('/') || args.dest_dir.contains(['\0', '\n']) {
        return Err(wrong("args: dest_dir is no absolute path"));
    }
    let misnamed = |what: &'static str| move |error: InvalidName| wrong(&format!("{what}: {error}"));
    let name: ArtifactName = asked.name.parse().map_err(misnamed("name"))?;
    let kinds: Result<Vec<DeviceType>, _> = asked.device_types.iter().map(|kind| kind.parse()).collect();
    let kinds = kinds.map_err(misnamed("device_types_compatible"))?;
    let payload = SINGLE_FILE.parse().map_err(misnamed("type"))?;
    let mut spec = ArtifactSpec::module_image(name, kinds, payload);
    spec.compression = CompressionLevel::default_of(Compression::Gzip);
    let usual = SoftwareName::of_payload_type(SINGLE_FILE);
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let software = SoftwareName {
        filesystem: given(args.software_filesystem).unwrap_or(usual.filesystem),
        name: given(args.software_name).or(usual.name),
    };
    let version = given(args.software_version).unwrap_or_else(|| asked.name.clone());
    spec.provide_version(&software, &version);
    spec.clear_software(&software);
    let lines = vec![
        Line { name: "dest_dir", text: format!("{}\n", args.dest_dir) },
        Line { name: "filename", text: format!("{file_name}\n") },
        Line { name: "permissions", text: "644\n".to_owned() },
    ];
    Ok(Plan { spec, lines, file_name, description: asked.description.clone() })
}

/// Makes the artifact, and takes it as if it had been uploaded. Its id.
async fn make(shared: &Shared, call: &Call, plan: Plan, field: &mut Field) -> Result<String, ApiError> {
    let id = id::uuid()?;
    let folder = shared.options.data_dir.join("incoming");
    let scratch = scratch(&folder)?;
    let mut file = tokio::fs::File::from_std(self::scratch(&folder)?);
    // Its size and its digest stand in front of it.
    while let Some(bytes) = field.bytes().await? {
        file.write_all(&bytes).await?;
    }
    // It may have taken an hour.
    permit::admit(shared, call).await?;
    file.flush().await?;
    file.rewind().await?;
    let file = file.into_std().await;
    audit::about(&id);
    let keeper = Keeper::of(shared);
    let mut intake = keeper.begin(&id).await?;
    let description = plan.description.clone();
    if let Err(error) = pass(&mut intake, plan, file, scratch).await {
        intake.discard().await;
        return Err(error);
    }
    keeper.keep(intake, id.clone(), description).await?;
    Ok(id)
}

/// Writes the artifact into the intake.
async fn pass(intake: &mut Intake, plan: Plan, file: File, mut scratch: File) -> Result<(), ApiError> {
    let (sender, mut receiver) = mpsc::channel(PIECES);
    let writer = tokio::task::spawn_blocking(move || {
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        let content = Content { name: plan.file_name, file, size };
        let sources = plan.lines.iter().map(|line| line as &dyn PayloadSource);
        let sources: Vec<&dyn PayloadSource> = sources.chain([&content as &dyn PayloadSource]).collect();
        let mut out = io::BufWriter::with_capacity(256 * 1024, Pipe { sender });
        write::write(&plan.spec, &sources, None, &mut scratch, &mut out).map_err(|error| error.to_string())
    });
    while let Some(bytes) = receiver.recv().await {
        intake.write(bytes).await?;
    }
    match writer.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => Err(ApiError::bad_request(&format!("no artifact can be made of that: {reason}"))),
        Err(_) => Err(ApiError::internal("the artifact could not be made")),
    }
}

/// A file without a name.
fn scratch(folder: &Path) -> Result<File, ApiError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(id::uuid()?);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// A file of one line.
struct Line {
    name: &'static str,
    text: String,
}

impl PayloadSource for Line {
    fn name(&self) -> &str {
        self.name
    }

    fn size(&self) -> u64 {
        self.text.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.text.as_bytes()))
    }
}

/// The file that was uploaded.
struct Content {
    name: String,
    file: File,
    size: u64,
}

impl PayloadSource for Content {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        (&self.file).seek(SeekFrom::Start(0))?;
        Ok(Box::new(&self.file))
    }
}

/// What is written goes to whoever reads the artifact.
struct Pipe {
    sender: mpsc::Sender<Bytes>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.sender.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
