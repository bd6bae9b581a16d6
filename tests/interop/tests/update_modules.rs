//! Update modules as they are published, run unmodified by our client; and one module that writes down how it is called,
//! under the real Mender client 3.4 and under ours.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use interop::backend::{Backend, FINISHED, PATIENCE};
use interop::mender_device::MenderDevice;
use interop::programs::client_program;
use interop::virtual_device::VirtualDevice;
use interop::{STOCK_MODULES, peer, tool, wait_for};
use serde_json::json;

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
        let module = peer(&format!("{STOCK_MODULES}/{name}"))?;
        let ours = Ours::new();
        symlink(module, ours.path("share/modules/v3").join(name)).unwrap();
        Some(ours)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        testkit::programs::place_script(&self.path(name), script);
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

/// A module that writes down how it is called, and does what a plan says: lines of `fail STATE` and `say STATE WORD`.
fn recording(folder: &Path) -> String {
    let here = folder.display();
    format!(
        r#"HERE='{here}'
echo "$1" >> "$HERE/states"
test "$#" = 2 && test "$(pwd -P)" = "$(cd "$2" && pwd -P)" || echo "wrong call: $# $2 $(pwd)" >> "$HERE/states"
find . | sort > "$HERE/tree-$1"
env | sed -n 's/^\([A-Z_a-z0-9]*\)=.*/\1/p' | grep -vx '_\|PWD\|OLDPWD\|SHLVL' | sort > "$HERE/environment"
cp -r header "$HERE/header-$1" 2>/dev/null
sed -n "s/^say $1 //p" "$HERE/plan"
! grep -qx "fail $1" "$HERE/plan""#
    )
}

/// Calls that only ask, and that the two clients make at different times (docs/update-modules.md, "States").
const QUESTIONS: [&str; 3] = ["ProvidePayloadFileSizes", "NeedsArtifactReboot", "SupportsRollback"];

fn deeds(folder: &Path) -> String {
    let states = fs::read_to_string(folder.join("states")).unwrap_or_default();
    let deeds: Vec<&str> = states.lines().filter(|state| !QUESTIONS.contains(state)).collect();
    deeds.join(" ")
}

/// Commands after each other, what the module does, and where ours differs on purpose: what it does, and why.
struct Scene {
    plan: &'static str,
    commands: &'static [&'static str],
    ours: Option<(&'static str, &'static str)>,
}

const fn scene(plan: &'static str, commands: &'static [&'static str]) -> Scene {
    Scene { plan, commands, ours: None }
}

const fn differs(
    plan: &'static str,
    commands: &'static [&'static str],
    ours: &'static str,
    why: &'static str,
) -> Scene {
    Scene { plan, commands, ours: Some((ours, why)) }
}

const BACK: &str = "say SupportsRollback Yes\n";

/// By hand.
const SCENES: &[Scene] = &[
    scene("say SupportsRollback Yes\n", &["install", "commit"]),
    differs(
        BACK,
        &["install", "rollback"],
        "Download ArtifactInstall ArtifactRollback ArtifactFailure Cleanup",
        "as client 5.x, which calls ArtifactFailure after every roll-back",
    ),
    scene("", &["install"]),
    scene("fail Download\n", &["install"]),
    scene("fail Download\nsay SupportsRollback Yes\n", &["install"]),
    scene("fail ArtifactInstall\n", &["install"]),
    scene("fail ArtifactInstall\nsay SupportsRollback Yes\n", &["install"]),
    scene("fail ArtifactInstall\nfail ArtifactRollback\nsay SupportsRollback Yes\n", &["install"]),
    scene("fail ArtifactInstall\nfail ArtifactFailure\nsay SupportsRollback Yes\n", &["install"]),
    scene("fail ArtifactCommit\n", &["install"]),
    scene("fail ArtifactCommit\nsay SupportsRollback Yes\n", &["install", "commit"]),
    scene("fail ArtifactRollback\nsay SupportsRollback Yes\n", &["install", "rollback"]),
    scene("fail Cleanup\nsay SupportsRollback Yes\n", &["install", "commit"]),
];

#[test]
fn a_module_is_called_alike_by_both_clients_on_the_command_line() {
    let Some(writer) = tool("mender-artifact") else { return };
    let (mut different, mut environments) = (Vec::new(), Vec::new());
    for scene in SCENES {
        let Some(theirs) = MenderDevice::new() else { return };
        let ours = Ours::new();
        theirs.program("share/modules/v3/recorder", &recording(&theirs.path("")));
        ours.program("share/modules/v3/recorder", &recording(ours.folder.path()));
        fs::write(theirs.path("plan"), scene.plan).unwrap();
        fs::write(ours.path("plan"), scene.plan).unwrap();
        fs::write(ours.path("payload"), "payload").unwrap();
        let made =
            artifact(&writer, ours.folder.path(), "release-2", "recorder", &[("-f", &ours.path("payload"))]);
        for command in scene.commands {
            let arguments: &[&str] =
                if *command == "install" { &["install", made.to_str().unwrap()] } else { &[*command] };
            theirs.command(arguments);
            ours.run(arguments);
        }
        let (expected, done) = (deeds(&theirs.path("")), deeds(ours.folder.path()));
        println!("{:<60} {expected}", format!("{:?} {:?}", scene.plan, scene.commands));
        let want = scene.ours.map_or(expected.as_str(), |(ours, why)| {
            println!("{:<60} {ours} ({why})", "  ours");
            ours
        });
        if done != want {
            different
                .push(format!("{:?} {:?}\n  theirs {expected}\n  ours   {done}", scene.plan, scene.commands));
        }
        environments.push((environment(&theirs.path("")), environment(ours.folder.path())));
        if (scene.plan, scene.commands) == (BACK, &["install", "commit"][..]) {
            compare_trees(&theirs.path(""), ours.folder.path());
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    // Whatever was there is passed on; the test itself adds one variable each.
    for (theirs, ours) in environments {
        let missing: Vec<&String> = theirs.iter().filter(|name| !ours.contains(name)).collect();
        assert!(missing.is_empty(), "not passed on by ours: {missing:?}");
    }
}

fn environment(folder: &Path) -> Vec<String> {
    let names = fs::read_to_string(folder.join("environment")).unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}

/// What a module finds when it installs: the same files, with the same meaning.
#[track_caller]
fn compare_trees(theirs: &Path, ours: &Path) {
    let files = |folder: &Path| {
        let listed = fs::read_to_string(folder.join("tree-ArtifactInstall")).unwrap();
        // Theirs keeps an empty folder for streams.
        let kept = listed.lines().filter(|line| *line != "./streams").map(str::to_owned);
        kept.collect::<Vec<String>>()
    };
    assert_eq!(files(ours), files(theirs));
    for name in ["artifact_name", "artifact_group", "payload_type"] {
        let read = |folder: &Path| fs::read(folder.join("header-ArtifactInstall").join(name)).unwrap();
        assert_eq!(read(ours), read(theirs), "{name}");
    }
    for name in ["header-info", "type-info", "meta-data"] {
        let read = |folder: &Path| {
            let text = fs::read(folder.join("header-ArtifactInstall").join(name)).unwrap();
            serde_json::from_slice::<serde_json::Value>(&text).unwrap()
        };
        assert_eq!(read(ours), read(theirs), "{name}");
    }
}

/// By the daemon: the module wants a restart of its own making, which is over when its call returns.
const OVER_THE_AIR: &[Scene] = &[
    scene("say SupportsRollback Yes\nsay NeedsArtifactReboot Yes\n", &[]),
    scene("say SupportsRollback Yes\n", &[]),
    scene("say NeedsArtifactReboot Yes\n", &[]),
    scene("fail Download\nsay SupportsRollback Yes\nsay NeedsArtifactReboot Yes\n", &[]),
    scene("fail ArtifactInstall\nsay SupportsRollback Yes\nsay NeedsArtifactReboot Yes\n", &[]),
    scene("fail ArtifactInstall\nsay NeedsArtifactReboot Yes\n", &[]),
    scene("fail ArtifactReboot\nsay SupportsRollback Yes\nsay NeedsArtifactReboot Yes\n", &[]),
    scene("fail ArtifactVerifyReboot\nsay SupportsRollback Yes\nsay NeedsArtifactReboot Yes\n", &[]),
    scene("fail ArtifactVerifyReboot\nsay NeedsArtifactReboot Yes\n", &[]),
    scene(
        "fail ArtifactVerifyReboot\nfail ArtifactRollback\nsay SupportsRollback Yes\nsay NeedsArtifactReboot Yes\n",
        &[],
    ),
    scene(
        "fail ArtifactVerifyReboot\nfail ArtifactRollbackReboot\nsay SupportsRollback Yes\nsay NeedsArtifactReboot Yes\n",
        &[],
    ),
    scene("fail ArtifactCommit\nsay SupportsRollback Yes\nsay NeedsArtifactReboot Yes\n", &[]),
    differs(
        "fail Cleanup\nsay SupportsRollback Yes\nsay NeedsArtifactReboot Yes\n",
        &[],
        "Download ArtifactInstall ArtifactReboot ArtifactVerifyReboot ArtifactCommit Cleanup success",
        "as client 5.x: what was committed has succeeded, and the failed clean-up is in the log",
    ),
];

/// One deployment to each client; what its module did, and how it ended.
fn deploy(plan: &str, writer: &Path) -> Option<[String; 2]> {
    let mut theirs = MenderDevice::new()?;
    let mut ours = VirtualDevice::new();
    fs::create_dir_all(ours.path("share/modules/v3")).unwrap();
    theirs.program("share/modules/v3/recorder", &recording(&theirs.path("")));
    ours.program("share/modules/v3/recorder", &recording(&ours.path("")));
    let folder = tempfile::tempdir().unwrap();
    let payload = folder.path().join("payload");
    fs::write(&payload, "payload").unwrap();
    let made = artifact(writer, folder.path(), "release-2", "recorder", &[("-f", &payload)]);
    let (their_server, our_server) = (Backend::start(|options| options), Backend::start(|options| options));
    fs::write(theirs.path("plan"), plan).unwrap();
    fs::write(ours.path("plan"), plan).unwrap();
    theirs.bring_key();
    theirs.start(their_server.running.url(), |_| {});
    ours.configure(our_server.running.url(), |config| {
        config["ArtifactVerifyKey"] = serde_json::Value::Null;
        config["RustOta"]["DangerAcceptUnsigned"] = true.into();
    });
    ours.start();
    let ends = [(&their_server, theirs.path("")), (&our_server, ours.path(""))].map(|(server, folder)| {
        server.accept_the_device();
        server.the_device();
        let deployment = server.deploy(&made, "release-2");
        let ended = wait_for(PATIENCE, || {
            let status = server.management.device_deployments(&deployment).unwrap();
            let status = status.into_iter().next()?.status;
            FINISHED.contains(&status.as_str()).then_some(status)
        });
        format!("{} {}", deeds(&folder), ended.unwrap_or_else(|| "does not end".into()))
    });
    theirs.stop();
    ours.stop();
    Some(ends)
}

#[test]
fn a_module_is_called_alike_by_both_daemons() {
    let Some(writer) = tool("mender-artifact") else { return };
    let mut different = Vec::new();
    for scene in OVER_THE_AIR {
        let Some([expected, done]) = deploy(scene.plan, &writer) else { return };
        println!("{:?}\n  {expected}", scene.plan);
        let want = scene.ours.map_or(expected.as_str(), |(ours, why)| {
            println!("  ours: {ours} ({why})");
            ours
        });
        if done != want {
            different.push(format!("{:?}\n  theirs {expected}\n  ours   {done}", scene.plan));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
