//! Other people's programs look for some files at fixed places. Here they get a mount namespace of their own in which
//! folders of a test lie there: nothing of the machine is changed, and nothing of it is seen.
//!
//! A place need not exist on the machine. Its parent is then covered by a folder that leads to everything that is there,
//! and has the place besides.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounts pairs of paths until a lone `-`, and becomes the rest.
const SCRIPT: &str =
    "while [ \"$1\" != - ]; do mount --bind \"$1\" \"$2\" || exit 125; shift 2; done; shift; exec \"$@\"";

/// What is to lie where.
#[derive(Debug)]
pub struct Namespace {
    /// What is mounted, and where, in order.
    mounts: Vec<(PathBuf, PathBuf)>,
}

impl Namespace {
    /// Each first path of `over` at the second one. `folder` is for what that needs.
    ///
    /// # Errors
    /// Why nothing can be mounted here.
    pub fn new(folder: &Path, over: &[(&Path, &str)]) -> io::Result<Namespace> {
        let mut namespace = Namespace { mounts: Vec::new() };
        for (number, (source, place)) in over.iter().enumerate() {
            let place = Path::new(place);
            if !place.exists() {
                namespace.cover_parent(&folder.join(format!("parent-{number}")), place)?;
            }
            namespace.mounts.push((source.to_path_buf(), place.to_path_buf()));
        }
        let tried = namespace.command("true".as_ref()).output()?;
        if tried.status.success() {
            return Ok(namespace);
        }
        Err(io::Error::other(String::from_utf8_lossy(&tried.stderr).trim().to_owned()))
    }

    /// Covers the parent of `place` by a folder with links to all that is in it, and with `place`.
    fn cover_parent(&mut self, folder: &Path, place: &Path) -> io::Result<()> {
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else { return Ok(()) };
        let (cover, real) = (folder.join("cover"), folder.join("real"));
        fs::create_dir_all(&real)?;
        fs::create_dir_all(cover.join(name))?;
        for entry in fs::read_dir(parent)? {
            let name = entry?.file_name();
            symlink(real.join(&name), cover.join(&name))?;
        }
        self.mounts.push((parent.to_path_buf(), real));
        self.mounts.push((cover, parent.to_path_buf()));
        Ok(())
    }

    /// `program` in it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"]);
        for (source, place) in &self.mounts {
            command.arg(source).arg(place);
        }
        command.arg("-").arg(program);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_the_machine_has_not_is_there_beside_everything_else() {
        let folder = std::env::temp_dir().join(format!("testkit-namespace-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (factory, share) = (folder.join("factory"), folder.join("share"));
        for (path, text) in [(&factory, "from the factory"), (&share, "shared")] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("file"), text).unwrap();
        }
        let over = [(&*factory, "/etc/surely-not-there"), (&*share, "/usr/share")];
        // Where nothing may be mounted there is nothing to try.
        let Ok(namespace) = Namespace::new(&folder, &over) else { return };
        let mut command = namespace.command("cat".as_ref());
        let read = ["/etc/surely-not-there/file", "/usr/share/file", "/etc/passwd"];
        let output = command.args(read).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with("from the factoryshared") && said.contains("root:"), "{said}");
        assert!(!Path::new("/etc/surely-not-there").exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
