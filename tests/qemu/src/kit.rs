//! What all scenarios of a run share: programs, keys, and root file systems, each made once.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use client_core::artifact::Signer;
use fs2::FileExt;
use testkit::choice::Generator;

use crate::Outcome;
use crate::assets::{Arch, Assets};
use crate::boards::{Board, KernelKind};
use crate::rootfs::{self, System};

/// Keys of the run.
pub struct Keys {
    /// Signs the artifacts.
    pub signer: Signer,
    /// The same in a file, for the host tool.
    pub private_file: PathBuf,
    /// What the devices verify with, PEM.
    pub public: String,
    /// Signs what the devices must not take.
    pub foreign: Signer,
    /// The key of the device, private, PEM.
    pub device: String,
    /// And public.
    pub device_public: String,
}

/// A kernel and its modules.
#[derive(Clone)]
pub struct Kernel {
    /// What a bootloader loads.
    pub image: PathBuf,
    /// The directory `kernel` of its modules, if it has any.
    pub modules: Option<PathBuf>,
}

/// What the scenarios share.
pub struct Kit {
    /// Where everything of this run is.
    pub work: PathBuf,
    /// What was downloaded and built.
    pub assets: Assets,
    /// The keys.
    pub keys: Keys,
    client_x86_64: PathBuf,
    /// Held as long as the run is.
    _lock: File,
    images: Mutex<BTreeMap<(String, System), Made>>,
}

type Made = Arc<OnceLock<Outcome<PathBuf>>>;

impl Kit {
    /// For a run in the folder `work`, with this client for x86-64.
    pub fn new(work: &Path, assets: Assets, client_x86_64: &Path) -> Outcome<Kit> {
        let mut random = Generator::new(0x0b0a_2d5e);
        // Keys of a test: the same in each run, so that images are the same too.
        let mut pair = || {
            let mut bytes = [0; 32];
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&random.next_word().to_le_bytes());
            }
            Signer::generate_ed25519(&bytes)
        };
        let (own, foreign, device) = (pair(), pair(), pair());
        let signer = |private: &str| {
            Signer::from_pem(private.as_bytes()).map_err(|error| format!("a key of the test: {error}"))
        };
        std::fs::create_dir_all(work).map_err(|error| format!("cannot make {}: {error}", work.display()))?;
        let private_file = work.join("signing-key");
        crate::write(&private_file, own.private.as_bytes())?;
        let keys = Keys {
            signer: signer(&own.private)?,
            private_file,
            public: signer(&own.private)?.public_pem(),
            foreign: signer(&foreign.private)?,
            device_public: signer(&device.private)?.public_pem(),
            device: device.private.to_string(),
        };
        let lock = work.join("lock");
        let lock = File::create(&lock).map_err(|error| format!("cannot make {}: {error}", lock.display()))?;
        // Two runs would throw away each other's disks.
        lock.try_lock_exclusive().map_err(|_| format!("another run is using {}", work.display()))?;
        Ok(Kit {
            work: work.to_path_buf(),
            _lock: lock,
            assets,
            keys,
            client_x86_64: client_x86_64.to_path_buf(),
            images: Mutex::new(BTreeMap::new()),
        })
    }

    /// The image of a system's root file system.
    pub fn root(&self, board: &dyn Board, system: &System) -> Outcome<PathBuf> {
        let key = (board.name().to_owned(), system.clone());
        let made = {
            let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
            images.entry(key).or_default().clone()
        };
        made.get_or_init(|| {
            let directory = self.work.join("roots");
            std::fs::create_dir_all(&directory)
                .map_err(|error| format!("{}: {error}", directory.display()))?;
            let mut mib = system.mib.map_or(String::new(), |mib| format!("-{mib}"));
            if system.own_mib > 0 {
                mib += &format!("-own-{}", system.own_mib);
            }
            let name = format!("{}-{}-{:?}{mib}.ext4", board.name(), system.version, system.fault);
            let image = directory.join(name);
            rootfs::build(self, board, system, &image)?;
            Ok(image)
        })
        .clone()
    }

    /// The client for an architecture.
    pub fn client(&self, arch: Arch) -> Outcome<PathBuf> {
        match arch {
            Arch::X86_64 => Ok(self.client_x86_64.clone()),
            Arch::Aarch64 | Arch::Armv7 => self.assets.client(arch),
        }
    }

    /// A static busybox.
    pub fn busybox(&self, arch: Arch) -> Outcome<PathBuf> {
        self.assets.busybox(arch)
    }

    /// The kernel of a board.
    pub fn kernel(&self, board: &dyn Board) -> Outcome<Kernel> {
        match board.kernel() {
            KernelKind::Debian => {
                let kernel = self.assets.kernel(board.arch())?;
                Ok(Kernel { image: kernel.image, modules: Some(kernel.modules) })
            }
            KernelKind::Small => Ok(Kernel { image: self.assets.small_kernel(board.arch())?, modules: None }),
        }
    }

    /// A file of the boot logic that ships, from `boot/`.
    pub fn product(&self, path: &str) -> PathBuf {
        crate::workspace().join("boot").join(path)
    }
}
