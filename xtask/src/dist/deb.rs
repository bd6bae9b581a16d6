//! Debian packages of the programs, made by `dpkg-deb`: the same files give the same bytes.
//!
//! Nothing that is installed is started or enabled: a client without a configuration has nothing to do, and a service that
//! updates a system is somebody's decision.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::compilers::Arch;
use xtask::shipped::CLIENT;

use super::sbom;
use crate::{Outcome, workspace};

/// A file of a package.
struct Item {
    /// Where it is in the source.
    from: &'static str,
    /// Where it is put, without the slash in front.
    to: &'static str,
    rights: u32,
    /// Whether it is the administrator's after it was installed.
    is_configuration: bool,
}

/// What belongs to the client besides the program. What is not in the source yet is not in the package.
const OF_CLIENT: &[Item] = &[
    Item {
        from: "daemon/rust-ota.service",
        to: "usr/lib/systemd/system/rust-ota.service",
        rights: 0o644,
        is_configuration: false,
    },
    Item {
        from: "daemon/rust-ota-failed.service",
        to: "usr/lib/systemd/system/rust-ota-failed.service",
        rights: 0o644,
        is_configuration: false,
    },
    Item {
        from: "daemon/init/rust-ota.sysv",
        to: "etc/init.d/rust-ota",
        rights: 0o755,
        is_configuration: true,
    },
    Item {
        from: "daemon/init/supervise",
        to: "usr/libexec/rust-ota/supervise",
        rights: 0o755,
        is_configuration: false,
    },
    Item {
        from: "daemon/support/mender-device-identity",
        to: "usr/share/mender/identity/mender-device-identity",
        rights: 0o755,
        is_configuration: false,
    },
    Item {
        from: "daemon/support/mender.conf",
        to: "etc/mender/mender.conf",
        rights: 0o600,
        is_configuration: true,
    },
];

/// The server.
const SERVER: &str = "rust-ota-server";

/// What belongs to the server besides the program.
const OF_SERVER: &[Item] = &[
    Item {
        from: "server/packaging/rust-ota-server.service",
        to: "usr/lib/systemd/system/rust-ota-server.service",
        rights: 0o644,
        is_configuration: false,
    },
    Item {
        from: "server/packaging/sysusers.conf",
        to: "usr/lib/sysusers.d/rust-ota-server.conf",
        rights: 0o644,
        is_configuration: false,
    },
    // The password of a person may be in it.
    Item {
        from: "server/packaging/default",
        to: "etc/default/rust-ota-server",
        rights: 0o640,
        is_configuration: true,
    },
];

/// How a package is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As small as can be, which takes its time.
    Xz,
    /// Not at all: for tests.
    #[cfg(test)]
    None,
}

/// A package.
pub struct Package<'a> {
    /// The program, and the package's name.
    pub program: &'a str,
    /// The program that was built.
    pub built: &'a Path,
    /// Of the workspace.
    pub version: &'a str,
    /// What it runs on.
    pub arch: Arch,
    /// The commit's time, in seconds since 1970.
    pub seconds: u64,
    /// How it is compressed.
    pub compression: Compression,
}

impl Package<'_> {
    /// Its file.
    fn file(&self) -> String {
        format!("{}_{}_{}.deb", self.program, self.version, self.arch.debian())
    }

    /// What the package is, for a person.
    fn about(&self) -> &'static str {
        match self.program {
            CLIENT => {
                "update client for devices with two root file systems\n \
                 Installs signed artifacts on the slot that does not run, has the bootloader try it\n \
                 once, and makes it permanent when the new system says so.\n .\n \
                 The service is installed and not enabled."
            }
            "rust-ota-artifact" => {
                "writes, signs and reads update artifacts\n \
                 The host tool for artifacts of the format of Mender, version 3."
            }
            _ => {
                "update server for devices\n \
                 One process with the device and the management API of a Mender-compatible server.\n .\n \
                 The service is installed and not enabled."
            }
        }
    }

    fn control(&self, installed_kib: u64, needs_libc: bool) -> String {
        // Both would own the same device and the same files.
        let conflicts = if self.program == CLIENT { "Conflicts: mender-client, mender-update\n" } else { "" };
        let depends = if needs_libc { "Depends: libc6\n" } else { "" };
        format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: rust-ota developers <rust-ota@localhost>\n\
             Installed-Size: {installed_kib}\nSection: admin\nPriority: optional\n{depends}{conflicts}Description: {}\n",
            self.program,
            self.version,
            self.arch.debian(),
            self.about()
        )
    }

    /// Makes it in `folder` by way of `work`, which is emptied, and returns its path.
    pub fn make(&self, root: &Path, work: &Path, folder: &Path) -> Outcome<PathBuf> {
        workspace::fresh_directory(work)?;
        put(self.built, &work.join("usr/bin").join(self.program), 0o755)?;
        let items = match self.program {
            CLIENT => OF_CLIENT,
            SERVER => OF_SERVER,
            _ => &[],
        };
        let mut configuration = String::new();
        for item in items {
            let from = root.join(item.from);
            if !from.is_file() {
                continue;
            }
            put(&from, &work.join(item.to), item.rights)?;
            if item.is_configuration {
                configuration += &format!("/{}\n", item.to);
            }
        }
        // Man pages and completions. Debian has its man pages compressed.
        crate::manual::run(&["--root".to_owned(), work.display().to_string(), self.program.to_owned()])?;
        let pages = work.join("usr/share/man");
        for page in workspace::files_of(&pages)? {
            compress(&pages.join(page))?;
        }
        let documents = work.join("usr/share/doc").join(self.program);
        fs::create_dir_all(&documents).map_err(|error| format!("{}: {error}", documents.display()))?;
        write(&documents.join("copyright"), &copyright(self.program), 0o644)?;
        self.changelog(&documents)?;
        let kib = bytes_below(work)?.div_ceil(1024);

        let control = work.join("DEBIAN");
        fs::create_dir_all(&control).map_err(|error| format!("{}: {error}", control.display()))?;
        write(&control.join("control"), &self.control(kib, has_interpreter(self.built)?), 0o644)?;
        if !configuration.is_empty() {
            write(&control.join("conffiles"), &configuration, 0o644)?;
        }
        let scripts = match self.program {
            CLIENT => Some(script as fn(&str) -> &'static str),
            SERVER => Some(script_of_server as fn(&str) -> &'static str),
            _ => None,
        };
        for name in ["postinst", "prerm", "postrm"] {
            if let Some(script) = scripts {
                write(&control.join(name), script(name), 0o755)?;
            }
        }
        let file = folder.join(self.file());
        let mut dpkg = Command::new("dpkg-deb");
        let compression = match self.compression {
            Compression::Xz => "-Zxz",
            #[cfg(test)]
            Compression::None => "-Znone",
        };
        dpkg.args(["--root-owner-group", compression, "--threads-max=1", "--build"]).arg(work).arg(&file);
        // The time of every member of the archive.
        dpkg.env("SOURCE_DATE_EPOCH", self.seconds.to_string());
        workspace::run_quietly(&mut dpkg)?;
        Ok(file)
    }

    /// The list of changes of a package of its own upstream: it says where the real one is.
    fn changelog(&self, documents: &Path) -> Outcome {
        let text = format!(
            "{} ({}) unstable; urgency=medium\n\n  * See CHANGELOG.md in the source.\n\n \
             -- rust-ota developers <rust-ota@localhost>  {}\n",
            self.program,
            self.version,
            mail_date(self.seconds)
        );
        let path = documents.join("changelog");
        write(&path, &text, 0o644)?;
        compress(&path)
    }
}

/// Compresses a file, without its name and time: they would be those of this moment.
fn compress(path: &Path) -> Outcome {
    workspace::run_quietly(Command::new("gzip").args(["-9", "-n", "-f"]).arg(path))
}

/// Shell scripts of the client's package. None enables or starts anything.
fn script(name: &str) -> &'static str {
    match name {
        // systemd hears of the unit.
        "postinst" => {
            "#!/bin/sh\nset -e\nif [ \"$1\" = configure ] && [ -d /run/systemd/system ]; then\n    \
             systemctl daemon-reload || true\nfi\n"
        }
        // Whoever removes the client wants it to end. An upgrade goes on with the old one until it is restarted.
        "prerm" => {
            "#!/bin/sh\nset -e\nif [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then\n    \
             systemctl stop rust-ota.service || true\nfi\n"
        }
        // The record and keys of the device stay in /var/lib/mender: they are what the bootloader is in the middle of.
        _ => {
            "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then\n    systemctl daemon-reload || true\nfi\n\
             if [ \"$1\" = purge ]; then\n    \
             rm -f /etc/systemd/system/multi-user.target.wants/rust-ota.service\n    \
             rm -f /etc/systemd/system/mender-updated.service /etc/systemd/system/mender-client.service\nfi\n"
        }
    }
}

/// Shell scripts of the server's package. What it has stored stays when it is purged, too: it may be all that is known of a
/// fleet.
fn script_of_server(name: &str) -> &'static str {
    match name {
        // The user that the service runs as.
        "postinst" => {
            "#!/bin/sh\nset -e\nif [ \"$1\" = configure ]; then\n    \
             if command -v systemd-sysusers >/dev/null; then\n        \
             systemd-sysusers rust-ota-server.conf || true\n    fi\n    \
             if [ -d /run/systemd/system ]; then\n        systemctl daemon-reload || true\n        \
             systemctl try-restart rust-ota-server.service || true\n    fi\nfi\n"
        }
        "prerm" => {
            "#!/bin/sh\nset -e\nif [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then\n    \
             systemctl stop rust-ota-server.service || true\nfi\n"
        }
        _ => {
            "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then\n    systemctl daemon-reload || true\nfi\n\
             if [ \"$1\" = purge ]; then\n    \
             rm -f /etc/systemd/system/multi-user.target.wants/rust-ota-server.service\nfi\n"
        }
    }
}

/// Whether a program is loaded by the C library of the system: one for musl has everything in it.
fn has_interpreter(program: &Path) -> Outcome<bool> {
    let bytes = fs::read(program).map_err(|error| format!("{}: {error}", program.display()))?;
    // The name of the interpreter stands in the first page.
    let first = bytes.get(..4096).unwrap_or(&bytes);
    Ok(first.windows(8).any(|part| part == b"ld-linux"))
}

fn copyright(program: &str) -> String {
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: {program}\n\n\
         Files: *\nCopyright: the rust-ota developers\nLicense: Apache-2.0\n \
         On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n \
         The program contains other people's crates; the list beside the package (CycloneDX) has their licenses.\n"
    )
}

/// `seconds` since 1970 in the form of a mail's date.
fn mail_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let stamp = sbom::timestamp(seconds);
    let part = |from: usize, to: usize| stamp.get(from..to).unwrap_or_default();
    let day = usize::try_from(seconds / 86_400 % 7).unwrap_or(0);
    let month = part(5, 7).parse::<usize>().unwrap_or(1);
    let (day, month) = (DAYS[day % 7], MONTHS[(month + 11) % 12]);
    format!("{day}, {} {month} {} {} +0000", part(8, 10), part(0, 4), part(11, 19))
}

fn put(from: &Path, to: &Path, rights: u32) -> Outcome {
    let failed =
        |error: std::io::Error| format!("cannot copy {} to {}: {error}", from.display(), to.display());
    fs::create_dir_all(to.parent().unwrap_or(to)).map_err(failed)?;
    fs::copy(from, to).map_err(failed)?;
    fs::set_permissions(to, fs::Permissions::from_mode(rights)).map_err(failed)
}

fn write(path: &Path, text: &str, rights: u32) -> Outcome {
    workspace::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(rights))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// The bytes of all files below `folder`.
fn bytes_below(folder: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for path in workspace::files_of(folder)? {
        let path = folder.join(path);
        bytes += fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?.len();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-deb-{name}-{}", std::process::id()));
        workspace::fresh_directory(&folder).unwrap();
        folder
    }

    fn package<'a>(program: &'a str, built: &'a Path, arch: Arch) -> Package<'a> {
        let compression = Compression::Xz;
        Package { program, built, version: "0.1.0", arch, seconds: 1_700_000_000, compression }
    }

    fn run(command: &mut Command) -> String {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{command:?}: {text}");
        text
    }

    /// What `dpkg` does below `folder` in place of the machine.
    fn dpkg(folder: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", folder.display()));
        command.args(["--force-not-root", "--force-script-chrootless", "--force-architecture"]);
        // Where the tools of dpkg are looked for.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        run(command.arg(format!("--log={}/log", folder.display())).args(arguments))
    }

    #[test]
    fn the_client_is_installed_removed_and_purged_and_nothing_is_enabled() {
        let folder = folder("install");
        let built = folder.join("program");
        fs::write(&built, "the program").unwrap();
        let deb =
            package(CLIENT, &built, Arch::X86_64).make(&workspace::root(), &folder.join("work"), &folder);
        let deb = deb.unwrap().display().to_string();
        let root = folder.join("root");
        for part in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
            fs::create_dir_all(root.join(part)).unwrap();
        }
        fs::write(root.join("var/lib/dpkg/status"), "").unwrap();

        dpkg(&root, &["--install", &deb]);
        let unit = root.join("usr/lib/systemd/system/rust-ota.service");
        let configuration = root.join("etc/mender/mender.conf");
        assert_eq!(fs::read_to_string(root.join("usr/bin/rust-ota")).unwrap(), "the program");
        assert!(unit.is_file() && configuration.is_file());
        assert!(root.join("etc/init.d/rust-ota").is_file() && !root.join("etc/rc2.d").exists());
        assert!(root.join("usr/share/man").is_dir(), "no man page");
        assert!(!root.join("etc/systemd").exists(), "a service was enabled");

        // What the administrator wrote is kept by another installation and by a removal.
        fs::write(&configuration, "{ \"mine\": 1 }").unwrap();
        dpkg(&root, &["--force-confold", "--install", &deb]);
        dpkg(&root, &["--remove", CLIENT]);
        assert!(!unit.exists() && !root.join("usr/bin/rust-ota").exists());
        assert_eq!(fs::read_to_string(&configuration).unwrap(), "{ \"mine\": 1 }");
        dpkg(&root, &["--purge", CLIENT]);
        assert!(!configuration.exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_server_that_is_unpacked_serves_with_what_lies_beside_it() {
        use std::io::{BufRead, BufReader};
        let folder = folder("server");
        // With the features of the whole build, so that nothing is built a second time for it.
        let build = ["build", "--quiet", "--workspace", "--all-features", "--bin", SERVER];
        workspace::run_quietly(workspace::cargo().args(build)).unwrap();
        let built = workspace::target_directory().unwrap().join("debug").join(SERVER);
        let of_debug = Package { compression: Compression::None, ..package(SERVER, &built, Arch::X86_64) };
        let deb = of_debug.make(&workspace::root(), &folder.join("work"), &folder).unwrap();
        let root = folder.join("root");
        run(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&root));
        let about = run(Command::new("dpkg-deb").arg("--field").arg(&deb));
        assert!(about.contains("Depends: libc6\n"), "{about}");
        // What the unit starts is what was unpacked, and the words behind it are ones that it knows.
        let unit = fs::read_to_string(root.join("usr/lib/systemd/system/rust-ota-server.service")).unwrap();
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/")).unwrap();
        let data = folder.join("data").display().to_string();
        let start =
            start.replace("/var/lib/rust-ota-server", &data).replace("$OPTIONS", "--listen 127.0.0.1:0");
        let mut words = start.split(' ');
        let mut server = Command::new(root.join(words.next().unwrap()))
            .args(words)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(line.starts_with("listening on http://127.0.0.1:"), "{line:?}");
        for part in ["usr/lib/sysusers.d/rust-ota-server.conf", "usr/share/man/man8/rust-ota-server.8.gz"] {
            assert!(root.join(part).is_file(), "{part}");
        }
        let default = fs::metadata(root.join("etc/default/rust-ota-server")).unwrap();
        assert_eq!(default.permissions().mode() & 0o777, 0o640);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn one_program_gives_the_same_package_each_time() {
        let folder = folder("same");
        let built = folder.join("program");
        fs::write(&built, "the program").unwrap();
        let mut packages = Vec::new();
        for name in ["one", "two"] {
            let to = folder.join(name);
            fs::create_dir_all(&to).unwrap();
            let tool = package("rust-ota-artifact", &built, Arch::Armv7);
            let deb = tool.make(&workspace::root(), &to.join("work"), &to).unwrap();
            let about = run(Command::new("dpkg-deb").arg("--field").arg(&deb));
            assert!(about.contains("Architecture: armhf") && !about.contains("Conflicts"), "{about}");
            packages.push(fs::read(deb).unwrap());
        }
        assert!(packages[0] == packages[1]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn dates_have_their_day_of_the_week() {
        assert_eq!(mail_date(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(mail_date(1_700_000_000), "Tue, 14 Nov 2023 22:13:20 +0000");
    }
}
