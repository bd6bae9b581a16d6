//! A real S3 server on the loopback: it checks signatures and how long links are valid.
//!
//! `cargo xtask test` installs it and says where (`ROTA_S3`); by itself a test looks into `target/s3`. Where there is none,
//! what needs it is left out, and said.

#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests may panic and say what they skip"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The keys of the server.
pub(crate) const KEYS: (&str, &str) = ("test", "testsecret");
/// The bucket that is there.
pub(crate) const BUCKET: &str = "fleet";

/// A server with one empty bucket. It ends with this.
pub(crate) struct S3Server {
    child: Child,
    url: String,
    folder: TempDir,
}

impl S3Server {
    /// Starts it; `None` with a word about it when it is not installed.
    pub(crate) fn start() -> Option<S3Server> {
        let program = program()?;
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", "0", "--access-key", KEYS.0, "--secret-key", KEYS.1]);
        command.arg(folder.path()).env("RUST_LOG", "s3s_fs=info").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.by_ref().find_map(|line| {
            let (_, url) =
                line.unwrap().split_once("running at ").map(|(a, b)| (a.to_owned(), b.to_owned()))?;
            Some(url.trim().to_owned())
        });
        // Nobody reads on; what it writes must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Some(S3Server { child, url: url.expect("the S3 server says where it is"), folder })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The files of its bucket, by their keys.
    pub(crate) fn objects(&self) -> Vec<String> {
        let bucket = self.folder.path().join(BUCKET);
        let mut found = Vec::new();
        look(&bucket, &bucket, &mut found);
        found.sort();
        found
    }

    /// Another byte in an object.
    pub(crate) fn damage(&self, key: &str) {
        let path = self.folder.path().join(BUCKET).join(key);
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    /// Ends it: nobody answers there any more.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn look(bucket: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Its own notes begin with a dot.
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            look(bucket, &path, found);
        } else {
            found.push(path.strip_prefix(bucket).unwrap().display().to_string());
        }
    }
}

fn program() -> Option<PathBuf> {
    if let Some(told) = std::env::var_os("ROTA_S3") {
        let told = PathBuf::from(told);
        assert!(told.is_file(), "{} is required and not there", told.display());
        return Some(told);
    }
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|at| at.join("Cargo.lock").is_file());
    let found = workspace.unwrap().join("target/s3/bin/s3s-fs");
    if !found.is_file() {
        println!("SKIPPED on S3: {} is not there; cargo xtask test installs it", found.display());
        return None;
    }
    Some(found)
}
