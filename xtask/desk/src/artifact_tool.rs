//! The host tool `rust-ota-artifact`, as the demo and the benchmark use it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::virtual_device::DEVICE_TYPE;
use xtask::{Outcome, workspace};

/// The built program.
pub struct ArtifactTool {
    program: PathBuf,
}

/// A key pair in files.
pub struct KeyPair {
    /// For signing.
    pub private: PathBuf,
    /// For the device.
    pub public: PathBuf,
}

impl ArtifactTool {
    /// The one beside this program.
    pub fn beside() -> Outcome<ArtifactTool> {
        Ok(ArtifactTool { program: crate::beside("rust-ota-artifact")? })
    }

    /// The one at this path.
    pub fn at(program: PathBuf) -> ArtifactTool {
        ArtifactTool { program }
    }

    /// Makes `private` and, beside it, the public key.
    pub fn make_keys(&self, private: PathBuf) -> Outcome<KeyPair> {
        workspace::run(self.command().arg("keygen").arg("--output-path").arg(&private))?;
        let mut public = private.clone().into_os_string();
        public.push(".pub");
        Ok(KeyPair { private, public: public.into() })
    }

    /// Writes a signed artifact `name` with `image` for the root file system.
    pub fn write_rootfs_image(
        &self,
        name: &str,
        image: &Path,
        compression: &str,
        keys: &KeyPair,
        output: &Path,
    ) -> Outcome {
        let mut command = self.command();
        command.args(["write", "rootfs-image", "--no-progress", "-t", DEVICE_TYPE, "-n", name]);
        command.args(["--compression", compression]).arg("-k").arg(&keys.private);
        workspace::run(command.arg("-f").arg(image).arg("-o").arg(output))
    }

    /// Writes a signed artifact `name` with `file`, not compressed, for the update module `module`.
    pub fn write_module_image(
        &self,
        module: &str,
        name: &str,
        file: &Path,
        keys: &KeyPair,
        output: &Path,
    ) -> Outcome {
        let mut command = self.command();
        command.args(["write", "module-image", "--no-progress", "-T", module, "-t", DEVICE_TYPE, "-n", name]);
        command.args(["--compression", "none"]).arg("-k").arg(&keys.private);
        workspace::run(command.arg("-f").arg(file).arg("-o").arg(output))
    }

    /// The command that writes the signed delta `name` between two images.
    pub fn delta(&self, name: &str, old: &Path, new: &Path, keys: &KeyPair, output: &Path) -> Command {
        let mut command = self.command();
        command.args(["delta", "--no-progress", "--json", "-t", DEVICE_TYPE, "-n", name]);
        command.arg("-k").arg(&keys.private).arg(old).arg(new).arg("-o").arg(output);
        command
    }

    /// The command that writes a signed artifact without a payload, which says that a device has the image with this checksum.
    pub fn bootstrap(&self, name: &str, checksum: &str, keys: &KeyPair) -> Command {
        let mut command = self.command();
        command.args(["write", "bootstrap-artifact", "--no-progress", "-t", DEVICE_TYPE, "-n", name]);
        command
            .arg("--provides")
            .arg(format!("rootfs-image.checksum:{checksum}"))
            .arg("-k")
            .arg(&keys.private);
        command
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.stdin(Stdio::null());
        command
    }
}
