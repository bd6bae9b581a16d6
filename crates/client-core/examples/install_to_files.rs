//! A whole update on two files that stand for the two slots of a device: an artifact is made and signed, installed into the
//! slot that does not run, tried, and committed.
//!
//! Everything that a device has to bring along is here: seven small implementations of the engine's seams. Each is honest
//! about files (what it says is durable is flushed) and knows nothing about updates: the order of the steps, what is verified
//! and when the bootloader is told are the engine's.
//!
//! ```text
//! cargo run -p rust-ota-client-core --example install_to_files
//! ```

// A program at a desk: it opens files, and prints.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::print_stdout)]

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use client_core::artifact::write::{self, ArtifactSpec, PayloadSource};
use client_core::artifact::{Limits, Signer, StateScript, Trust, VerifyKeys};
use client_core::boot::{Armable, Arming, BootControl, BootEnvError, BootError, BootState};
use client_core::deploy::gates::AlwaysOpen;
use client_core::deploy::record::Record;
use client_core::deploy::scripts::{OnScriptFailure, ScriptError, ScriptPoint, ScriptRunner};
use client_core::deploy::{self, Device, NoReporter, Notice, Observer, Options, Policy, Summary};
use client_core::install::{NoModules, Progress};
use client_core::slot::{Restart, Slot, SlotError, Slots, System};
use client_core::state_store::TwoCopyRecord;
use client_core::storage::{BlockDevice, ReadAt, ReadOnly};

const SLOT_BYTES: u64 = 1 << 20;
const RECORD_BYTES: u64 = 128 << 10;
const DEVICE_TYPE: &str = "two-files";

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("install-to-files-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let result = update(&folder);
    fs::remove_dir_all(&folder)?;
    result
}

/// The whole story, in a folder of its own.
pub fn update(folder: &Path) -> Result<(), Box<dyn Error>> {
    for name in ["slot-a", "slot-b"] {
        File::create(folder.join(name))?.set_len(SLOT_BYTES)?;
    }
    File::create(folder.join("record"))?.set_len(RECORD_BYTES)?;
    TwoCopyRecord::format_new(FileDevice::open(&folder.join("record"))?, &Record::new().to_json()?)?;
    let mut board = Board { folder: folder.to_owned(), running: Slot::A };
    BootFile(folder.join("boot")).store(Slot::A, false)?;

    let image = vec![7; 300_000];
    let (artifact, keys) = signed_artifact(&image)?;
    let policy = Policy { trust: Trust::Keys(keys), limits: Limits::default() };
    let summary = board.with_device(|device| {
        deploy::install(device, Cursor::new(artifact.clone()), &policy, &Options::default())
    })?;
    println!("install: {}", summary.status.name());

    // What a bootloader does: it starts the slot it was pointed at.
    board.running = BootFile(folder.join("boot")).state()?.selected;
    println!("restart: slot {} runs", board.running);

    let summary = board.with_device(|device| deploy::commit(device, &Options::default()))?;
    println!("commit: {}", summary.status.name());
    let written = fs::read(folder.join("slot-b"))?;
    if board.running != Slot::B || written.get(..image.len()) != Some(&image[..]) {
        return Err("the image is not what runs".into());
    }
    Ok(())
}

/// An artifact with `image`, and the keys that trust its signature.
fn signed_artifact(image: &[u8]) -> Result<(Vec<u8>, VerifyKeys), Box<dyn Error>> {
    let signer = Signer::from_pem(Signer::generate_ed25519(&[1; 32]).private.as_bytes())?;
    let mut keys = VerifyKeys::default();
    keys.add_pem("the key of this example", signer.public_pem().as_bytes())?;
    let spec = ArtifactSpec::rootfs_image("release-2".parse()?, vec![DEVICE_TYPE.parse()?]);
    let mut artifact = Vec::new();
    let files: [&dyn PayloadSource; 1] = [&Image(image)];
    write::write(&spec, &files, Some(&signer), &mut Cursor::new(Vec::new()), &mut artifact)?;
    Ok((artifact, keys))
}

/// The image as the file of a payload.
struct Image<'i>(&'i [u8]);

impl PayloadSource for Image<'_> {
    fn name(&self) -> &str {
        "rootfs.img"
    }
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn open(&self) -> io::Result<Box<dyn io::Read + '_>> {
        Ok(Box::new(self.0))
    }
}

/// The device: a folder, and the slot that the last start came from.
struct Board {
    folder: PathBuf,
    running: Slot,
}

impl Board {
    /// Puts the seams together and lets `work` use them, as one process of a client would.
    fn with_device(
        &mut self,
        work: impl FnOnce(&mut Device<'_>) -> Result<Summary, deploy::DeployError>,
    ) -> Result<Summary, Box<dyn Error>> {
        let mut boot = BootFile(self.folder.join("boot"));
        let mut slots = SlotFiles { folder: self.folder.clone(), running: self.running };
        let mut state = TwoCopyRecord::open(FileDevice::open(&self.folder.join("record"))?)?;
        let summary = work(&mut Device {
            boot: &mut boot,
            slots: &mut slots,
            system: &Running(self.running),
            modules: &mut NoModules,
            state: &mut state,
            scripts: &mut NoScripts,
            observer: &mut Told,
            gates: &mut AlwaysOpen,
            reporter: &mut NoReporter,
        })?;
        match summary.error {
            Some(error) => Err(error.into()),
            None => Ok(summary),
        }
    }
}

/// What boots next: the name of a slot and whether it is on trial, in a file that is replaced as a whole.
struct BootFile(PathBuf);

impl BootFile {
    fn store(&self, slot: Slot, trial: bool) -> Result<(), BootError> {
        let new = self.0.with_extension("new");
        let store = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            write!(file, "{slot}{}", if trial { " trial" } else { "" })?;
            file.sync_all()?; // the content before the name that leads to it
            fs::rename(&new, &self.0)?;
            File::open(self.0.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        store().map_err(|source| self.error("write", source))
    }

    fn error(&self, doing: &'static str, source: io::Error) -> BootError {
        BootEnvError::Io { doing, path: self.0.display().to_string(), source }.into()
    }
}

impl BootControl for BootFile {
    fn check_configured(&mut self) -> Result<(), BootError> {
        Ok(())
    }

    fn state(&mut self) -> Result<BootState, BootError> {
        let text = fs::read_to_string(&self.0).map_err(|source| self.error("read", source))?;
        let (selected, trial) = match text.as_str() {
            "A" => (Slot::A, false),
            "B" => (Slot::B, false),
            "A trial" => (Slot::A, true),
            "B trial" => (Slot::B, true),
            _ => return Err(self.error("understand", io::ErrorKind::InvalidData.into())),
        };
        Ok(BootState { selected, trial, arming: Arming::Durable })
    }

    fn check_arm(&mut self, _: Slot) -> Result<(), BootError> {
        self.state().map(drop)
    }

    fn arm(&mut self, target: Armable) -> Result<(), BootError> {
        self.store(target.slot(), true)
    }

    fn commit(&mut self, target: Slot) -> Result<(), BootError> {
        self.store(target, false)
    }

    fn settle_on(&mut self, slot: Slot) -> Result<(), BootError> {
        let BootState { selected, trial, .. } = self.state()?;
        if (selected, trial) == (slot, false) { Ok(()) } else { self.store(slot, false) }
    }

    fn describe(&self) -> String {
        format!("boot file {}", self.0.display())
    }
}

/// The slots: the one that runs is only read.
struct SlotFiles {
    folder: PathBuf,
    running: Slot,
}

impl SlotFiles {
    fn device(&self, slot: Slot) -> Result<FileDevice, SlotError> {
        let path = self.folder.join(format!("slot-{}", slot.to_string().to_lowercase()));
        let shown = path.display().to_string();
        FileDevice::open(&path).map_err(|source| SlotError::Io { doing: "open", path: shown, source })
    }
}

impl Slots for SlotFiles {
    fn open(&mut self, slot: Slot) -> Result<Box<dyn BlockDevice + '_>, SlotError> {
        if slot == self.running {
            return Err(SlotError::Running { slot, path: self.folder.display().to_string() });
        }
        Ok(Box::new(self.device(slot)?))
    }

    fn open_source(&mut self, slot: Slot) -> Result<Box<dyn ReadAt>, SlotError> {
        Ok(Box::new(ReadOnly::new(self.device(slot)?)))
    }
}

/// A file as storage.
struct FileDevice {
    file: File,
    name: String,
    length: u64,
}

impl FileDevice {
    fn open(path: &Path) -> io::Result<FileDevice> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        Ok(FileDevice { file, name: path.display().to_string(), length })
    }
}

impl BlockDevice for FileDevice {
    fn len(&self) -> u64 {
        self.length
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        // A file would grow; a partition does not.
        if offset.saturating_add(data.len() as u64) > self.length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.file.write_all_at(data, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }
    fn drop_cache(&mut self) -> io::Result<()> {
        // The real implementation tells the kernel; what is read back here may come from its memory.
        Ok(())
    }
    fn name(&self) -> &str {
        &self.name
    }
}

/// What the operating system would know.
struct Running(Slot);

impl System for Running {
    fn running_slot(&self) -> Result<Slot, SlotError> {
        Ok(self.0)
    }
    fn device_type(&self) -> Result<String, SlotError> {
        Ok(DEVICE_TYPE.to_owned())
    }
    fn reboot(&self, _: &Restart) -> Result<(), SlotError> {
        Ok(())
    }
}

/// A device without state scripts.
struct NoScripts;

impl ScriptRunner for NoScripts {
    fn stage(&mut self, _: &[StateScript]) -> Result<(), ScriptError> {
        Ok(())
    }
    fn publish(&mut self) -> Result<(), ScriptError> {
        Ok(())
    }
    fn run(&mut self, _: ScriptPoint, _: OnScriptFailure) -> Result<(), ScriptError> {
        Ok(())
    }
    fn check_root_scripts(&mut self) -> Result<(), ScriptError> {
        Ok(())
    }
    fn discard(&mut self) -> Result<(), ScriptError> {
        Ok(())
    }
}

/// Whoever watches.
struct Told;

impl Progress for Told {
    fn written(&mut self, done_bytes: u64, total_bytes: u64) {
        println!("written: {done_bytes} of {total_bytes} bytes");
    }
    fn verified(&mut self, done_bytes: u64, total_bytes: u64) {
        println!("read back: {done_bytes} of {total_bytes} bytes");
    }
}

impl Observer for Told {
    fn notice(&mut self, notice: Notice) {
        println!("{notice:?}");
    }
}
