//! An image in independent frames: other people's readers find in it what they find in any artifact, and other people's web
//! server gives the client the parts that it asks for.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use client_core::artifact::Compression;
use client_core::slot::Slot;
use interop::programs::client_program;
use interop::virtual_device::VirtualDevice;
use testkit::artifacts::{self, MemoryFile};

/// A file as a file system lays it out, of bytes that hardly compress: long enough for a frame of its own.
fn file(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8 | 1
    };
    let mut file: Vec<u8> = std::iter::repeat_with(noise).take(40_000).collect();
    file.resize(40_960, 0);
    file
}

/// Twenty files, and zeros.
fn image(seeds: impl Iterator<Item = u64>) -> Vec<u8> {
    seeds.flat_map(file).chain(vec![0; 128 << 10]).collect()
}

fn framed(name: &str, image: &[u8]) -> Vec<u8> {
    let mut spec = artifacts::rootfs_spec(name, Compression::Zstd);
    spec.frames = true;
    artifacts::build(&spec, &[MemoryFile { name: "rootfs.img".into(), content: image.to_vec() }], None)
}

/// What `program` prints; `None` where it fails, which is said.
fn printed(program: &Path, arguments: &[&str], folder: &Path) -> Option<Vec<u8>> {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(output.stdout).or_else(|| {
        println!("{} {arguments:?}: {said}", program.display());
        None
    })
}

#[test]
fn readers_of_other_people_take_frames_for_an_ordinary_payload() {
    let (Some(bsdtar), Some(zstd), Some(pzstd)) =
        (interop::tool("bsdtar"), interop::tool("zstd"), interop::tool("pzstd"))
    else {
        return;
    };
    let (folder, image) = (tempfile::tempdir().unwrap(), image(0..20));
    let at = folder.path();
    fs::write(at.join("a.mender"), framed("release-2", &image)).unwrap();
    let member = printed(&bsdtar, &["-xOf", "a.mender", "data/0000.tar.zst"], at).unwrap();
    assert!(member.windows(8).any(|bytes| bytes == b"rotafrm1"), "there is no frame table");
    fs::write(at.join("data.tar.zst"), &member).unwrap();
    // libarchive is what the Mender clients from 4.0 on read with.
    assert!(printed(&bsdtar, &["-xOf", "data.tar.zst", "rootfs.img"], at).unwrap() == image);
    for program in [zstd, pzstd] {
        let archive = printed(&program, &["-q", "-d", "-c", "data.tar.zst"], at).unwrap();
        assert!(archive[512..].starts_with(&image), "{}", program.display());
    }
    let python = Path::new("/usr/bin/python3");
    let across = "import sys, zstandard\n\
                  f = open('data.tar.zst', 'rb')\n\
                  r = zstandard.ZstdDecompressor().stream_reader(f, read_across_frames=True)\n\
                  sys.stdout.buffer.write(r.read())";
    match printed(python, &["-c", "import zstandard"], at) {
        Some(_) => {
            let archive = printed(python, &["-c", across], at).unwrap();
            assert!(archive[512..].starts_with(&image));
        }
        None => println!("SKIPPED: python3-zstandard is not installed"),
    }
}

/// `mender-artifact` before 3.10 knows no zstd at all: that a refusal is not about the frames is shown by an artifact without.
#[test]
fn mender_artifact_reads_frames_where_it_reads_zstd() {
    let Some(tool) = interop::tool("mender-artifact") else { return };
    let (folder, image) = (tempfile::tempdir().unwrap(), image(0..20));
    let at = folder.path();
    let plain = artifacts::rootfs_spec("release-2", Compression::Zstd);
    let content = MemoryFile { name: "rootfs.img".into(), content: image.clone() };
    fs::write(at.join("plain.mender"), artifacts::build(&plain, &[content], None)).unwrap();
    fs::write(at.join("frames.mender"), framed("release-2", &image)).unwrap();
    let reads = |name: &str| printed(&tool, &["read", name], at).is_some();
    assert_eq!(reads("frames.mender"), reads("plain.mender"));
}

/// The web server, on a free port of this machine, with a folder.
struct Nginx {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Nginx {
    fn new(program: &Path, options: &str) -> Nginx {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = folder.path().display();
        let configuration = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/errors;\n\
             events {{ }}\n\
             http {{\n\
             log_format sent '$status $body_bytes_sent';\n\
             access_log {at}/sent sent;\n\
             client_body_temp_path {at}/a; proxy_temp_path {at}/b; fastcgi_temp_path {at}/c;\n\
             uwsgi_temp_path {at}/d; scgi_temp_path {at}/e;\n\
             server {{ listen 127.0.0.1:{port}; root {at}/files; {options} }}\n\
             }}\n"
        );
        fs::create_dir(folder.path().join("files")).unwrap();
        fs::write(folder.path().join("conf"), configuration).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(folder.path().join("conf")).arg("-p").arg(folder.path());
        command.arg("-e").arg(folder.path().join("errors"));
        let process = command.stdin(Stdio::null()).spawn().unwrap();
        let nginx = Nginx { process, port, folder };
        let answers = || TcpStream::connect(("127.0.0.1", port)).ok();
        assert!(interop::wait_for(Duration::from_secs(120), answers).is_some(), "nginx does not start");
        nginx
    }

    /// Puts a file there; its address.
    fn serve(&self, content: &[u8]) -> String {
        fs::write(self.folder.path().join("files/a.mender"), content).unwrap();
        format!("http://127.0.0.1:{}/a.mender", self.port)
    }

    /// The answers so far: status, and bytes of the body.
    fn sent(&self) -> Vec<(u16, u64)> {
        let log = fs::read_to_string(self.folder.path().join("sent")).unwrap();
        let line = |line: &str| {
            let (status, bytes) = line.split_once(' ').unwrap();
            (status.parse().unwrap(), bytes.parse().unwrap())
        };
        log.lines().map(line).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A device that runs the old image installs the new one, of which one file of twenty is new, from `nginx`.
fn install_from(nginx: &Nginx) {
    let device = VirtualDevice::new();
    let url = nginx.serve(&framed("release-2", &image(1..21)));
    device.configure("http://127.0.0.1:9", |config| {
        config["RustOta"]["DangerAcceptUnsigned"] = true.into();
        config.as_object_mut().unwrap().remove("ArtifactVerifyKey");
    });
    let mut running = image(0..20);
    running.resize(1 << 20, 0);
    fs::write(device.slot(Slot::A), running).unwrap();
    let mut command = Command::new(client_program());
    command.arg("--config").arg(device.path("conf/mender.conf")).arg("--datastore").arg(device.path("data"));
    let output = command.args(["install", &url]).stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    assert!(fs::read(device.slot(Slot::B)).unwrap().starts_with(&image(1..21)));
}

fn nginx() -> Option<PathBuf> {
    interop::peer("usr/sbin/nginx")
}

#[test]
fn nginx_gives_only_the_frame_that_is_missing() {
    let Some(program) = nginx() else { return };
    let nginx = Nginx::new(&program, "");
    install_from(&nginx);
    let sent = nginx.sent();
    assert!(sent.len() == 3 && sent.iter().all(|(status, _)| *status == 206), "{sent:?}");
    let bytes: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
    // The head, the table, and one frame of about 35,000 bytes.
    assert!(bytes < (64 << 10) + 40_000, "{bytes}");
}

#[test]
fn nginx_without_ranges_gives_everything_once() {
    let Some(program) = nginx() else { return };
    let nginx = Nginx::new(&program, "max_ranges 0;");
    install_from(&nginx);
    let whole = framed("release-2", &image(1..21)).len() as u64;
    assert_eq!(nginx.sent(), [(200, whole)]);
}
