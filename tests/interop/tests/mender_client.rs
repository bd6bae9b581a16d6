//! Artifacts of ours on a device of theirs: the real Mender client 3.4 installs what our writer made.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use testkit::namespace::Namespace;

/// Where it looks for its update modules; of the stock ones `single-file` copies one file to where two others say.
const SHARE_FOLDER: &str = "/usr/share/mender";

/// Where release 3.4 looks for the name of what the factory installed; no option changes that.
const FACTORY_FOLDER: &str = "/etc/mender";

/// The real client with a device of its own in a folder.
///
/// Its package is unpacked, not installed: what it looks for at fixed places lies there in a namespace of its own.
struct Bench {
    client: PathBuf,
    namespace: Namespace,
    folder: tempfile::TempDir,
}

impl Bench {
    /// `None` when the client or its module is missing; the reason is printed.
    fn new() -> Option<Bench> {
        let client = interop::peer("usr/bin/mender")?;
        let share = interop::peer("usr/share/mender")?;
        let folder = tempfile::tempdir().unwrap();
        let factory = folder.path().join("factory");
        fs::create_dir(&factory).unwrap();
        let over = [(&*factory, FACTORY_FOLDER), (&*share, SHARE_FOLDER)];
        let namespace = interop::namespace(folder.path(), &over)?;
        let bench = Bench { client, namespace, folder };
        fs::create_dir(bench.path("data")).unwrap();
        fs::write(bench.path("data/device_type"), "device_type=testbox\n").unwrap();
        fs::write(bench.path("mender.conf"), "{}").unwrap();
        fs::write(bench.path("factory/artifact_info"), "artifact_name=release-0\n").unwrap();
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn trust(&self, key: &Path) {
        let config = format!("{{\"ArtifactVerifyKey\":\"{}\"}}", key.display());
        fs::write(self.path("mender.conf"), config).unwrap();
    }

    /// Runs the real client. The datastore has to be an absolute path: its update modules have another working folder.
    fn client(&self, arguments: &[&str]) -> Output {
        let mut command = self.namespace.command(&self.client);
        command.arg("--no-syslog").arg("--data").arg(self.path("data"));
        command.arg("--config").arg(self.path("mender.conf"));
        command.arg("--fallback-config").arg(self.path("none.conf"));
        command.args(arguments).output().unwrap()
    }

    #[track_caller]
    fn client_succeeds(&self, arguments: &[&str]) -> String {
        let output = self.client(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", shown(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs our tool.
    #[track_caller]
    fn ours(&self, arguments: &[OsString]) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let done = rust_ota_artifact::run(arguments.iter().cloned(), &mut out, &mut err);
        assert!(done, "{}", String::from_utf8_lossy(&err));
    }

    /// A key pair: private, public.
    fn keys(&self, name: &str) -> (PathBuf, PathBuf) {
        let pair = client_core::artifact::Signer::generate_ecdsa_p256().unwrap();
        let (private, public) = (self.path(&format!("{name}.key")), self.path(&format!("{name}.pub")));
        fs::write(&private, pair.private).unwrap();
        fs::write(&public, pair.public).unwrap();
        (private, public)
    }

    /// An artifact that puts `content` to `target/greeting`.
    fn write(&self, name: &str, content: &str, compression: &str, key: Option<&Path>) -> PathBuf {
        let target = self.path("target");
        let files = [
            ("dest_dir", target.to_str().unwrap()),
            ("filename", "greeting"),
            ("permissions", "640"),
            ("greeting", content),
        ];
        let artifact = self.path(&format!("{name}.mender"));
        let options =
            ["write", "module-image", "-T", "single-file", "-t", "testbox", "--no-progress", "-n", name];
        let mut arguments: Vec<OsString> = options.map(OsString::from).to_vec();
        arguments.extend(["-c".into(), compression.into(), "-o".into(), artifact.clone().into()]);
        for (file, content) in files {
            fs::write(self.path(file), content).unwrap();
            arguments.extend(["-f".into(), self.path(file).into()]);
        }
        if let Some(key) = key {
            arguments.extend(["-k".into(), key.into()]);
        }
        self.ours(&arguments);
        artifact
    }

    /// The file arrives, with its permissions and the name of its artifact.
    #[track_caller]
    fn installs(&self, name: &str, content: &str, artifact: &Path) {
        let said = self.client_succeeds(&["install", artifact.to_str().unwrap()]);
        assert!(said.contains("Use 'commit' to update"), "{said}");
        self.client_succeeds(&["commit"]);
        let arrived = self.path("target/greeting");
        assert_eq!(fs::read_to_string(&arrived).unwrap(), content);
        assert_eq!(fs::metadata(&arrived).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(self.client_succeeds(&["show-artifact"]).trim(), name);
        let provides = self.client_succeeds(&["show-provides"]);
        assert!(provides.contains(&format!("rootfs-image.single-file.version={name}")), "{provides}");
    }

    #[track_caller]
    fn refuses(&self, words: &str, artifact: &Path) {
        let output = self.client(&["install", artifact.to_str().unwrap()]);
        assert!(!output.status.success(), "{}", shown(&output));
        assert!(shown(&output).contains(words), "{words:?} is not in {}", shown(&output));
        assert!(!self.path("target").exists());
    }
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_real_client_installs_our_artifact() {
    let Some(bench) = Bench::new() else { return };
    for compression in ["none", "gzip", "lzma"] {
        let name = format!("release-{compression}");
        let artifact = bench.write(&name, compression, compression, None);
        bench.installs(&name, compression, &artifact);
    }
}

#[test]
fn the_real_client_goes_back_from_our_artifact() {
    let Some(bench) = Bench::new() else { return };
    bench.installs("release-1", "one", &bench.write("release-1", "one", "gzip", None));
    let second = bench.write("release-2", "two", "gzip", None);
    bench.client_succeeds(&["install", second.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(bench.path("target/greeting")).unwrap(), "two");
    bench.client_succeeds(&["rollback"]);
    assert_eq!(fs::read_to_string(bench.path("target/greeting")).unwrap(), "one");
    assert_eq!(bench.client_succeeds(&["show-artifact"]).trim(), "release-1");
}

#[test]
fn the_real_client_verifies_our_signature() {
    let Some(bench) = Bench::new() else { return };
    let (private, public) = bench.keys("right");
    let (wrong_private, _) = bench.keys("wrong");
    bench.trust(&public);
    bench.refuses("expecting signed artifact", &bench.write("unsigned", "x", "gzip", None));
    bench.refuses("signature", &bench.write("forged", "x", "gzip", Some(&wrong_private)));
    let artifact = bench.write("signed", "signed content", "gzip", Some(&private));
    bench.installs("signed", "signed content", &artifact);
}

#[test]
fn the_real_client_refuses_our_artifact_for_another_device() {
    let Some(bench) = Bench::new() else { return };
    fs::write(bench.path("data/device_type"), "device_type=toaster\n").unwrap();
    bench.refuses("toaster", &bench.write("release-1", "x", "gzip", None));
}
