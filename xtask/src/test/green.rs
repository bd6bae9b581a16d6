//! What need not run again: a step whose inputs are those of its last good run on this machine.
//!
//! The note of a good run is a number over everything that the step looks at, in `target/xtask/green`. Where there is no
//! note, or the number is another one, the step runs. `--all` asks nobody.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Outcome, workspace};

/// What a step looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inputs {
    /// Where features and versions show: manifests, crate roots, and files that are compiled under a condition.
    Conditions,
    /// What documentation is made of: comments for readers, what is public, modules and imports.
    Documentation,
    /// The client as it ships: its crates, and how it is built.
    Client,
    /// What the board tests run: the client, its boot logic, the boards. Not the server, the host tool, documents.
    Boards,
    /// The Yocto layer, and what of the workspace it names. Sources of the programs are only there, not read.
    Yocto,
    /// The external tree for Buildroot, and what its images and the init scripts are made of and run.
    Buildroot,
    /// Man pages and completions: what they are made from, and how they are looked at.
    Manual,
}

/// Packages that are part of the client.
const CLIENT: &[&str] = &[
    "crates/artifact/",
    "crates/client-core/",
    "crates/delta/",
    "crates/bootloader-uboot/",
    "crates/bootloader-grub/",
    "crates/device/",
    "crates/doctor/",
    "crates/http/",
    "crates/linux/",
    "crates/manual/src/help.rs",
    "crates/manual/src/rust_ota.rs",
    "crates/service/",
    "crates/vcdiff/",
    "daemon/",
    "xtask/src/compilers.rs",
    "xtask/src/shipped.rs",
    "xtask/src/size.rs",
    "xtask/musl/",
    "xtask/no-unwind-tables.ld",
];

/// What board tests have besides.
const BOARDS: &[&str] = &["boot/", "tests/qemu/", "crates/testkit/src/", "xtask/src/qemu.rs"];

/// What the checks of the layer look at, and what they are.
const YOCTO: &[&str] = &["yocto/", "boot/", "xtask/src/test/yocto.rs"];

/// What Buildroot's tree is tested with besides.
const BUILDROOT: &[&str] = &["buildroot/", "boot/", "tools/artifact/", "xtask/src/test/buildroot.rs"];

/// What man pages and completions are made of.
const MANUAL: &[&str] = &["crates/manual/", "xtask/src/manual.rs", "xtask/src/test/manual.rs"];

/// What changes every build.
fn is_of_every_build(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name == "Cargo.toml" || name == "Cargo.lock" || path.starts_with(".cargo")
}

impl Inputs {
    /// What of the file `path` with this `text` belongs to them; `None` when nothing does.
    fn part<'a>(self, path: &Path, text: &'a str) -> Option<Vec<&'a str>> {
        let whole = || Some(vec![text]);
        if is_of_every_build(path) {
            return whole();
        }
        let is_document = path.extension().is_some_and(|end| end == "md");
        let below =
            |folders: &[&str]| folders.iter().any(|folder| path.to_string_lossy().starts_with(folder));
        // Its own tests are not what ships, nor do they start on a board.
        let is_integration_test = path.to_string_lossy().contains("/tests/");
        match self {
            Inputs::Conditions => {
                if path.extension().is_none_or(|end| end != "rs") {
                    return None;
                }
                let root = ["lib.rs", "main.rs", "build.rs"].iter().any(|name| path.ends_with(name));
                // Every file has its tests under a condition; that one is not meant.
                let other = text.replace("#[cfg(test)]", "");
                let conditional = ["cfg(", "cfg_attr(", "cfg!("].iter().any(|word| other.contains(word));
                if root || conditional { whole() } else { None }
            }
            Inputs::Documentation => {
                if path.extension().is_none_or(|end| end != "rs") {
                    return None;
                }
                let words = ["///", "//!", "pub ", "pub(", "mod ", "use ", "#["];
                let shows = |line: &&str| words.iter().any(|word| line.trim_start().starts_with(word));
                Some(text.lines().filter(shows).collect())
            }
            Inputs::Client if below(CLIENT) && !is_document && !is_integration_test => whole(),
            Inputs::Boards if below(CLIENT) && !is_document && !is_integration_test => whole(),
            Inputs::Boards if below(BOARDS) && !is_document => whole(),
            Inputs::Yocto if below(YOCTO) => whole(),
            Inputs::Buildroot if below(CLIENT) || below(BUILDROOT) => {
                if is_document || is_integration_test {
                    None
                } else {
                    whole()
                }
            }
            Inputs::Manual if below(MANUAL) && !is_document => whole(),
            Inputs::Client | Inputs::Boards | Inputs::Buildroot | Inputs::Manual | Inputs::Yocto => None,
        }
    }
}

/// The notes of good runs.
pub struct Green {
    folder: PathBuf,
    /// The compiler, as it describes itself.
    compiler: String,
    /// Every file of the project with its text.
    files: Vec<(PathBuf, String)>,
    /// Whether everything is to run.
    all: bool,
}

impl Green {
    /// Reads the project as it is now.
    pub fn open(all: bool) -> Outcome<Green> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = workspace::capture(Command::new(rustc).arg("-vV").stdin(Stdio::null()))?;
        let root = workspace::root();
        let files = workspace::files()?;
        let read = |path: PathBuf| {
            let bytes = fs::read(root.join(&path)).unwrap_or_default();
            (path, String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Green {
            folder: workspace::target_directory()?.join("xtask/green"),
            compiler: String::from_utf8_lossy(&output.stdout).into_owned(),
            files: files.into_iter().map(read).collect(),
            all,
        })
    }

    /// Whether `step` went well with exactly these inputs.
    pub fn knows(&self, step: &str, inputs: Inputs) -> bool {
        let noted = fs::read_to_string(self.note(step));
        !self.all && noted.is_ok_and(|noted| noted == self.number(inputs))
    }

    /// Notes that `step` went well.
    pub fn remember(&self, step: &str, inputs: Inputs) -> Outcome {
        fs::create_dir_all(&self.folder)
            .map_err(|error| format!("cannot make {}: {error}", self.folder.display()))?;
        workspace::write(&self.note(step), self.number(inputs))
    }

    fn note(&self, step: &str) -> PathBuf {
        self.folder.join(step.replace(' ', "-"))
    }

    fn number(&self, inputs: Inputs) -> String {
        let mut hasher = DefaultHasher::new();
        self.compiler.hash(&mut hasher);
        for (path, text) in &self.files {
            if let Some(part) = inputs.part(path, text) {
                path.hash(&mut hasher);
                part.hash(&mut hasher);
            }
        }
        format!("{:016x}\n", hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: &str = "a step";

    fn green(name: &str) -> Green {
        let folder = std::env::temp_dir().join(format!("xtask-green-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let files = [
            ("Cargo.toml", "[workspace]"),
            ("README.md", "# rust-ota"),
            ("boot/u-boot/boot.cmd", "run mender"),
            ("crates/client-core/src/lib.rs", "//! The core.\npub mod boot;"),
            ("crates/client-core/src/boot.rs", "//! Boots.\nfn f() { 1 }\n#[cfg(test)]\nmod tests {}"),
            ("crates/client-core/src/tar.rs", "//! Tar.\n#[cfg(feature = \"gzip\")]\nuse gzip;"),
            ("crates/client-core/tests/deployment.rs", "//! Enumerates."),
            ("crates/manual/src/rust_ota.rs", "//! Describes."),
            ("crates/manual/src/rust_ota_server.rs", "//! Describes."),
            ("daemon/tests/killed.rs", "//! Kills."),
            ("server/src/api.rs", "//! Answers.\nfn f() {}"),
            ("tests/qemu/src/main.rs", "//! Boards."),
            ("tools/artifact/src/write.rs", "//! Writes.\nfn f() {}"),
        ];
        let files = files.map(|(path, text)| (PathBuf::from(path), text.to_owned())).to_vec();
        Green { folder, compiler: "rustc 1".into(), files, all: false }
    }

    /// Which inputs see a change of `path` to `text`.
    fn check(path: &str, text: &str, seen_by: &[Inputs]) {
        let mut green = green(&path.replace('/', "-"));
        let all = [
            Inputs::Conditions,
            Inputs::Documentation,
            Inputs::Client,
            Inputs::Boards,
            Inputs::Manual,
            Inputs::Yocto,
        ];
        for inputs in all {
            assert!(!green.knows(STEP, inputs), "nothing is known before the first run");
        }
        for inputs in all {
            green.remember(&format!("{inputs:?}"), inputs).unwrap();
            assert!(green.knows(&format!("{inputs:?}"), inputs));
        }
        let file = green.files.iter_mut().find(|(known, _)| known == Path::new(path));
        match file {
            Some((_, known)) => *known = text.to_owned(),
            None => green.files.push((path.into(), text.to_owned())),
        }
        let changed: Vec<Inputs> =
            all.into_iter().filter(|inputs| !green.knows(&format!("{inputs:?}"), *inputs)).collect();
        assert_eq!(changed, seen_by, "{path}");
        fs::remove_dir_all(&green.folder).unwrap();
    }

    #[test]
    fn a_change_is_seen_by_the_steps_that_look_at_it_and_by_no_other() {
        use Inputs::{Boards, Client, Conditions, Documentation, Manual, Yocto};
        let everybody = [Conditions, Documentation, Client, Boards, Manual, Yocto];
        let all_of_code = &everybody[..4];
        check("Cargo.toml", "[workspace] # x", &everybody);
        check("crates/client-core/Cargo.toml", "new", &everybody);
        check("crates/client-core/src/lib.rs", "//! The core.\npub mod other;", all_of_code);
        check(
            "crates/client-core/src/boot.rs",
            "//! Boots.\nfn f() { 2 }\n#[cfg(test)]\nmod tests {}",
            &[Client, Boards],
        );
        check(
            "crates/client-core/src/boot.rs",
            "//! Boots it.\nfn f() { 1 }\n#[cfg(test)]\nmod tests {}",
            &[Documentation, Client, Boards],
        );
        check("crates/client-core/src/tar.rs", "//! Tar.\n#[cfg(feature = \"xz\")]\nuse gzip;", all_of_code);
        check("crates/client-core/src/tar.rs", "//! Tar.\nuse gzip;", all_of_code);
        check("boot/u-boot/boot.cmd", "run it", &[Boards, Yocto]);
        check("yocto/meta-rust-ota/conf/layer.conf", "new", &[Yocto]);
        check("crates/manual/src/rust_ota.rs", "//! Describes.\nfn f() {}", &[Client, Boards, Manual]);
        check("crates/manual/src/rust_ota_server.rs", "//! Describes.\nfn f() {}", &[Manual]);
        check("tests/qemu/src/main.rs", "//! Boards.\nfn f() {}", &[Conditions, Boards]);
    }

    #[test]
    fn documents_server_host_tool_and_tests_of_others_do_not_reach_the_boards() {
        check("README.md", "# other", &[]);
        check("boot/u-boot/README.md", "# new", &[Inputs::Yocto]);
        check("server/src/api.rs", "//! Answers.\nfn f() { 1 }", &[]);
        check("tools/artifact/src/write.rs", "//! Writes.\nfn f() { 1 }", &[]);
        check("daemon/tests/killed.rs", "//! Kills.\nfn f() { 1 }", &[]);
        check("crates/client-core/tests/deployment.rs", "//! Enumerates.\nfn f() { 1 }", &[]);
    }

    #[test]
    fn another_compiler_and_the_long_run_know_nothing() {
        let mut green = green("compiler");
        green.remember(STEP, Inputs::Boards).unwrap();
        green.all = true;
        assert!(!green.knows(STEP, Inputs::Boards));
        green.all = false;
        assert!(green.knows(STEP, Inputs::Boards));
        green.compiler = "rustc 2".into();
        assert!(!green.knows(STEP, Inputs::Boards));
        fs::remove_dir_all(&green.folder).unwrap();
    }

    #[test]
    fn a_file_that_is_gone_is_a_change() {
        let mut green = green("gone");
        green.remember(STEP, Inputs::Boards).unwrap();
        green.files.retain(|(path, _)| path != Path::new("boot/u-boot/boot.cmd"));
        assert!(!green.knows(STEP, Inputs::Boards));
        fs::remove_dir_all(&green.folder).unwrap();
    }
}
