//! Update modules as they are published, run unmodified by our client; and one module that writes down how it is called,
//! under the real Mender client 3.4 and under ours.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use interop::tool;
use interop::virtual_device::client_program;
use serde_json::json;

/// Where Debian's package of the client puts its modules.
const STOCK: &str = "/usr/share/mender/modules/v3";
const DEVICE_TYPE: &str = testkit::artifacts::DEVICE_TYPE;

/// A device for the command line of our client, with modules and with programs of its own before those of the machine.
struct Ours {
    folder: tempfile::TempDir,
}

impl Ours {
    fn new() -> Ours {
        let ours = Ours { folder: tempfile::tempdir().unwrap() };
        for folder in ["data", "conf", "share/modules/v3", "bin"] {
            fs::create_dir_all(ours.path(folder)).unwrap();
        }
        fs::write(ours.path("data/device_type"), format!("device_type={DEVICE_TYPE}\n")).unwrap();
        let config = json!({ "RustOta": { "DangerAcceptUnsigned": true } });
        fs::write(ours.path("conf/mender.conf"), config.to_string()).unwrap();
        ours
    }

    /// With a stock module; `None` when it is not installed.
    fn with_stock(name: &str) -> Option<Ours> {
        let module = Path::new(STOCK).join(name);
        if !module.is_file() {
            assert!(std::env::var_os("ROTA_REQUIRE_TOOLS").is_none_or(|v| v != "1"), "{module:?} is missing");
            println!("SKIPPED: {} is not installed", module.display());
            return None;
        }
        let ours = Ours::new();
        symlink(module, ours.path("share/modules/v3").join(name)).unwrap();
        Some(ours)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        fs::write(self.path(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(client_program());
        command.arg("--datastore").arg(self.path("data")).args(arguments);
        command.env("MENDER_CONF_DIR", self.path("conf")).env("MENDER_DATA_DIR", self.path("share"));
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.output().unwrap()
    }

    /// Runs it and compares what it says, with its exit code.
    #[track_caller]
    fn says(&self, arguments: &[&str], code: i32, lines: &[&str]) {
        let output = self.run(arguments);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let said: Vec<&str> = stdout.lines().collect();
        assert_eq!((output.status.code(), &said[..]), (Some(code), lines), "{}", shown(&output));
    }

    #[track_caller]
    fn installs(&self, artifact: &Path) {
        self.says(&["install", artifact.to_str().unwrap()], 0, &INSTALLED);
    }

    #[track_caller]
    fn installs_for_good(&self, artifact: &Path) {
        self.says(&["install", artifact.to_str().unwrap()], 0, &FOR_GOOD);
    }

    fn provides(&self) -> String {
        String::from_utf8(self.run(&["show-provides"]).stdout).unwrap()
    }
}

const INSTALLED: [&str; 3] = [
    "Installing artifact...",
    "Installed, but not committed.",
    "Use 'commit' to update, or 'rollback' to roll back the update.",
];
const FOR_GOOD: [&str; 3] = [
    "Installing artifact...",
    "Update Module doesn't support rollback. Committing immediately.",
    "Installed and committed.",
];
const INCONSISTENT: [&str; 3] = [
    "Installing artifact...",
    "Installation failed.",
    "Update Module does not support rollback. System may be in an inconsistent state.",
];

/// Makes an artifact for a module with the real tool.
#[track_caller]
fn artifact(tool: &Path, folder: &Path, name: &str, module: &str, more: &[(&str, &Path)]) -> PathBuf {
    let artifact = folder.join(format!("{name}.mender"));
    let mut arguments: Vec<OsString> =
        ["write", "module-image", "-T", module, "-t", DEVICE_TYPE, "-n", name].map(OsString::from).to_vec();
    arguments.extend(["-o".into(), artifact.clone().into()]);
    for (option, path) in more {
        arguments.extend([option.into(), path.into()]);
    }
    let output = Command::new(tool).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    artifact
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_stock_module_single_file_installs_and_goes_back() {
    let (Some(ours), Some(writer)) = (Ours::with_stock("single-file"), tool("mender-artifact")) else {
        return;
    };
    let target = ours.path("target");
    let build = |name: &str| {
        for (file, content) in [
            ("dest_dir", target.to_str().unwrap()),
            ("filename", "greeting"),
            ("permissions", "640"),
            ("greeting", name),
        ] {
            fs::write(ours.path(file), content).unwrap();
        }
        let files = ["dest_dir", "filename", "permissions", "greeting"].map(|file| ours.path(file));
        let files: Vec<(&str, &Path)> = files.iter().map(|file| ("-f", file.as_path())).collect();
        artifact(&writer, ours.folder.path(), name, "single-file", &files)
    };
    let greeting = || fs::read_to_string(target.join("greeting")).unwrap();
    ours.installs(&build("one"));
    ours.says(&["commit"], 0, &["Committed."]);
    assert_eq!(greeting(), "one");
    assert_eq!(fs::metadata(target.join("greeting")).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(ours.provides().contains("rootfs-image.single-file.version=one"), "{}", ours.provides());
    ours.installs(&build("two"));
    assert_eq!(greeting(), "two");
    ours.says(&["rollback"], 0, &["Rolled back."]);
    assert_eq!(greeting(), "one");
    assert!(!ours.path("data/modules/v3/payloads/0000/tree").exists());
}

#[test]
fn the_stock_module_directory_installs_and_goes_back() {
    let (Some(ours), Some(writer)) = (Ours::with_stock("directory"), tool("mender-artifact")) else { return };
    let target = ours.path("target");
    let build = |name: &str| {
        let source = ours.path("source");
        fs::create_dir_all(source.join("inner")).unwrap();
        fs::write(source.join("inner/file"), name).unwrap();
        let (tar, place) = (ours.path("update.tar"), ours.path("dest_dir"));
        fs::write(&place, format!("{}\n", target.display())).unwrap();
        let packed =
            Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&source).arg(".").status().unwrap();
        assert!(packed.success());
        artifact(&writer, ours.folder.path(), name, "directory", &[("-f", &tar), ("-f", &place)])
    };
    let content = || fs::read_to_string(target.join("inner/file")).unwrap();
    ours.installs(&build("one"));
    ours.says(&["commit"], 0, &["Committed."]);
    ours.installs(&build("two"));
    assert_eq!(content(), "two");
    ours.says(&["rollback"], 0, &["Rolled back."]);
    assert_eq!(content(), "one");
}

#[test]
fn the_stock_module_script_runs_its_scripts_in_order_and_for_good() {
    let (Some(ours), Some(writer)) = (Ours::with_stock("script"), tool("mender-artifact")) else { return };
    let log = ours.path("log");
    let script = |name: &str, end: &str| {
        let path = ours.path(name);
        fs::write(&path, format!("#!/bin/sh\necho {name} >> '{}'\n{end}\n", log.display())).unwrap();
        path
    };
    let (b, a) = (script("b", ""), script("a", ""));
    let good = artifact(&writer, ours.folder.path(), "good", "script", &[("-f", &b), ("-f", &a)]);
    ours.installs_for_good(&good);
    assert_eq!(fs::read_to_string(&log).unwrap(), "a\nb\n");
    let bad = script("c", "exit 1");
    let bad = artifact(&writer, ours.folder.path(), "bad", "script", &[("-f", &bad)]);
    ours.says(&["install", bad.to_str().unwrap()], 1, &INCONSISTENT);
    assert!(ours.provides().contains("artifact_name=bad_INCONSISTENT"), "{}", ours.provides());
}

#[test]
fn the_stock_module_deb_installs_real_packages() {
    let (Some(ours), Some(writer)) = (Ours::with_stock("deb"), tool("mender-artifact")) else { return };
    let (Some(dpkg), Some(dpkg_deb)) = (tool("dpkg"), tool("dpkg-deb")) else { return };
    let root = ours.path("root");
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    // The module calls `dpkg`: this one has a root of its own, and is the real one.
    let own = format!(
        "exec {} --root='{}' --force-not-root --log=/dev/null \"$@\"",
        dpkg.display(),
        root.display()
    );
    ours.program("bin/dpkg", &own);
    let build = |name: &str, version: &str, preinst: &str| {
        let package = ours.path(&format!("package-{name}"));
        fs::create_dir_all(package.join("DEBIAN")).unwrap();
        fs::create_dir_all(package.join("opt/app")).unwrap();
        fs::write(package.join("opt/app/version"), version).unwrap();
        let control = format!(
            "Package: rota-app\nVersion: {version}\nArchitecture: all\nMaintainer: Test <test@example.com>\nDescription: test\n"
        );
        fs::write(package.join("DEBIAN/control"), control).unwrap();
        if !preinst.is_empty() {
            fs::write(package.join("DEBIAN/preinst"), format!("#!/bin/sh\n{preinst}\n")).unwrap();
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(package.join("DEBIAN/preinst"), mode).unwrap();
        }
        let file = ours.path(&format!("{name}.deb"));
        let mut command = Command::new(&dpkg_deb);
        let made = command.args(["--build", "--root-owner-group"]).arg(&package).arg(&file).output().unwrap();
        assert!(made.status.success(), "{}", shown(&made));
        artifact(&writer, ours.folder.path(), name, "deb", &[("-f", &file)])
    };
    let installed = || fs::read_to_string(root.join("opt/app/version")).unwrap();
    ours.installs_for_good(&build("one", "1.0", ""));
    assert_eq!(installed(), "1.0");
    ours.installs_for_good(&build("two", "2.0", ""));
    assert_eq!(installed(), "2.0");
    assert!(fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap().contains("Version: 2.0"));
    // A package that does not let itself be installed; the module cannot go back and says so.
    let broken = build("three", "3.0", "exit 1");
    ours.says(&["install", broken.to_str().unwrap()], 1, &INCONSISTENT);
    assert_eq!(installed(), "2.0");
    assert!(ours.provides().contains("artifact_name=three_INCONSISTENT"));
}

#[test]
fn the_stock_module_rpm_installs_real_packages() {
    let (Some(ours), Some(writer)) = (Ours::with_stock("rpm"), tool("mender-artifact")) else { return };
    let (Some(rpm), Some(rpmbuild)) = (tool("rpm"), tool("rpmbuild")) else { return };
    let (root, top) = (ours.path("root"), ours.path("rpmbuild"));
    fs::create_dir_all(&root).unwrap();
    let own = format!("exec {} --root '{}' --noscripts \"$@\"", rpm.display(), root.display());
    ours.program("bin/rpm", &own);
    let build = |version: &str| {
        let spec = format!(
            "Name: rota-app\nVersion: {version}\nRelease: 1\nSummary: test\nLicense: none\nBuildArch: noarch\n\
             %description\ntest\n%install\nmkdir -p %{{buildroot}}/opt/app\n\
             echo {version} > %{{buildroot}}/opt/app/version\n%files\n/opt/app/version\n"
        );
        let path = ours.path("app.spec");
        fs::write(&path, spec).unwrap();
        let mut command = Command::new(&rpmbuild);
        command.arg("--define").arg(format!("_topdir {}", top.display())).arg("-bb").arg(&path);
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", shown(&made));
        let file = top.join(format!("RPMS/noarch/rota-app-{version}-1.noarch.rpm"));
        artifact(&writer, ours.folder.path(), &format!("rpm-{version}"), "rpm", &[("-f", &file)])
    };
    let installed = || fs::read_to_string(root.join("opt/app/version")).unwrap();
    for version in ["1.0", "2.0"] {
        ours.installs_for_good(&build(version));
        assert_eq!(installed().trim(), version);
    }
}

/// No engine for containers runs where the tests do: `docker` is a stand-in that writes down how it is called.
#[test]
fn the_stock_module_docker_starts_containers_and_goes_back_to_the_old_ones() {
    let (Some(ours), Some(writer)) = (Ours::with_stock("docker"), tool("mender-artifact")) else { return };
    if tool("jq").is_none() {
        return;
    }
    let log = ours.path("calls");
    let docker =
        format!("echo \"$@\" >> '{}'\ncase \"$1\" in ps) echo old1; echo old2 ;; esac", log.display());
    ours.program("bin/docker", &docker);
    let meta_data = ours.path("meta-data");
    fs::write(&meta_data, r#"{"containers":["app@sha256:0123","db@sha256:4567"],"run_args":"-p 80:80"}"#)
        .unwrap();
    ours.installs(&artifact(&writer, ours.folder.path(), "containers", "docker", &[("-m", &meta_data)]));
    let calls = || fs::read_to_string(&log).unwrap();
    let expected = "ps -q\nstop old1 old2\npull app@sha256:0123\nrun -dt -p 80:80 app@sha256:0123\n\
                    pull db@sha256:4567\nrun -dt -p 80:80 db@sha256:4567\n";
    assert_eq!(calls(), expected);
    fs::remove_file(&log).unwrap();
    ours.says(&["rollback"], 0, &["Rolled back."]);
    assert_eq!(calls(), "ps -q\nps -q\nstop old1 old2\nstart old1 old2\n");
}
