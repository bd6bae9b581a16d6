//! Other clients that install the same image in the same turns: Mender's client 3.4, SWUpdate and RAUC of Debian. They are
//! unpacked, not installed, and run on files of the bench.
//!
//! What they are given is signed, and they check it. Mender writes to block devices only and gets a loop device; RAUC mounts its
//! bundle through one. What the kernel's own threads do for those counts for nobody. RAUC's service and a bus of its own
//! begin and end with each turn, and count. None of the three reads back what it wrote.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use testkit::namespace::Namespace;

use crate::virtual_device::DEVICE_TYPE;
use xtask::{Outcome, peers, workspace};

use super::install::{Bench, COMPRESSIONS, Compression, Sample, measure, median, ratio};

/// A client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Mender,
    SwUpdate,
    Rauc,
}

impl Client {
    const ALL: [Client; 3] = [Client::Mender, Client::SwUpdate, Client::Rauc];

    /// For a person.
    fn name(self) -> &'static str {
        match self {
            Client::Mender => "Mender",
            Client::SwUpdate => "SWUpdate",
            Client::Rauc => "RAUC",
        }
    }

    fn program(self, folder: &Path) -> PathBuf {
        folder.join("usr/bin").join(match self {
            Client::Mender => "mender",
            Client::SwUpdate => "swupdate",
            Client::Rauc => "rauc",
        })
    }

    /// Whether it knows this compression.
    fn takes(self, compression: &Compression) -> bool {
        match self {
            Client::Mender => compression.name != "zstd",
            Client::SwUpdate => compression.name != "lzma",
            Client::Rauc => true,
        }
    }
}

/// A client that can be run, with what it took of each compression.
struct Peer {
    client: Client,
    samples: [Vec<Sample>; COMPRESSIONS.len()],
}

/// Those that can be run, and why others cannot.
pub struct Peers {
    folder: PathBuf,
    directory: PathBuf,
    running: Vec<Peer>,
    left_out: Vec<String>,
    versions: String,
}

/// A loop device, detached when this is dropped.
struct LoopDevice(String);

impl LoopDevice {
    fn new(file: &Path) -> Outcome<LoopDevice> {
        let output = workspace::capture(Command::new("/sbin/losetup").args(["--find", "--show"]).arg(file))?;
        match String::from_utf8_lossy(&output.stdout).trim() {
            "" => Err("losetup gives no loop device: this needs root".into()),
            path => Ok(LoopDevice(path.to_owned())),
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(error) = workspace::run_quietly(Command::new("losetup").arg("--detach").arg(&self.0)) {
            println!("{error}");
        }
    }
}

/// Starts a bus and the service, installs, and ends both. `$1` is the program, `$2` its folder, `$3` the bundle.
const RAUC: &str = r#"
cd "$2" || exit 1
export DBUS_SYSTEM_BUS_ADDRESS="unix:path=$2/bus"
dbus-daemon --config-file=bus.conf --nofork --nopidfile & bus=$!
tries=0
until [ -S bus ] || [ $tries = 100 ]; do tries=$((tries + 1)); sleep 0.1; done
"$1" --conf=system.conf --override-boot-slot=A service & service=$!
has_owner() {
    dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner \
        string:de.pengutronix.rauc | grep -q true
}
until has_owner || [ $tries = 100 ]; do tries=$((tries + 1)); sleep 0.1; done
"$1" --conf=system.conf install "$3"
result=$?
kill $service; wait $service
kill $bus; wait $bus
exit $result
"#;

impl Peers {
    /// Unpacks them, and makes for each what it installs.
    pub fn prepare(bench: &Bench) -> Outcome<Peers> {
        let directory = bench.directory.join("peers");
        workspace::fresh_directory(&directory)?;
        let folder = peers::installers()?;
        let all = peers::versions(&folder);
        // The rest are libraries.
        let versions: Vec<&str> = all.split(", ").filter(|package| !package.starts_with("lib")).collect();
        let versions = versions.join(", ");
        let mut peers = Peers { folder, directory, running: Vec::new(), left_out: Vec::new(), versions };
        for client in Client::ALL {
            let made = peers.has_libraries(client).and_then(|()| match client {
                Client::Mender => peers.prepare_mender(),
                Client::SwUpdate => peers.prepare_swupdate(bench),
                Client::Rauc => peers.prepare_rauc(bench),
            });
            match made {
                Ok(()) => {
                    peers.running.push(Peer { client, samples: [const { Vec::new() }; COMPRESSIONS.len()] })
                }
                Err(reason) => peers.leave_out(client, &reason),
            }
        }
        Ok(peers)
    }

    fn leave_out(&mut self, client: Client, reason: &str) {
        println!("{} is left out: {reason}", client.name());
        self.left_out.push(client.name().to_owned());
    }

    fn has_libraries(&self, client: Client) -> Outcome {
        let mut command = Command::new("ldd");
        let output = workspace::capture(self.with_libraries(command.arg(client.program(&self.folder))))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let missing: Vec<&str> =
            said.lines().filter(|line| line.contains("not found")).map(str::trim).collect();
        if missing.is_empty() { Ok(()) } else { Err(missing.join(", ")) }
    }

    fn with_libraries<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("LD_LIBRARY_PATH", self.folder.join(peers::LIBRARIES))
    }

    /// One turn of each that knows `compression`. One that fails takes no further turn.
    pub fn turn(&mut self, bench: &Bench, compression: &Compression) {
        let mut running = std::mem::take(&mut self.running);
        let mut failed = Vec::new();
        running.retain_mut(|peer| {
            if !peer.client.takes(compression) {
                return true;
            }
            match self.install(bench, peer.client, compression) {
                Ok(sample) => {
                    let places = COMPRESSIONS.iter().zip(&mut peer.samples);
                    for (_, samples) in places.filter(|(of, _)| of.name == compression.name) {
                        samples.push(sample.clone());
                    }
                    true
                }
                Err(reason) => {
                    failed.push((peer.client, reason));
                    false
                }
            }
        });
        self.running = running;
        for (client, reason) in failed {
            self.leave_out(client, &reason);
        }
    }

    fn install(&self, bench: &Bench, client: Client, compression: &Compression) -> Outcome<Sample> {
        bench.fill_slot(&self.slot())?;
        let sample = match client {
            Client::Mender => self.mender(bench, compression),
            Client::SwUpdate => self.swupdate(compression),
            Client::Rauc => self.rauc(compression),
        }?;
        bench.check_slot(&self.slot())?;
        Ok(sample)
    }

    /// Where all of them install to. The other one, `slot-1`, is only named.
    fn slot(&self) -> PathBuf {
        self.directory.join("slot-2")
    }

    /// What the client installs.
    fn bundle(&self, client: Client, compression: &Compression) -> PathBuf {
        self.directory.join(format!("{}-{}", client.name(), compression.name))
    }

    /// A certificate that signed itself, beside its key.
    fn certificate(&self, name: &str, extension: &str) -> Outcome<(PathBuf, PathBuf)> {
        let at = |suffix: &str| self.directory.join(format!("{name}.{suffix}"));
        let (certificate, key) = (at("crt"), at("key"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bench", "-days", "300"]);
        command.args(["-addext", extension]).arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        workspace::run_quietly(&mut command)?;
        Ok((certificate, key))
    }

    fn prepare_mender(&self) -> Outcome {
        let directory = self.directory.join("mender");
        for folder in ["factory", "share", "programs"] {
            workspace::fresh_directory(&directory.join(folder))?;
        }
        workspace::write(&directory.join("factory/artifact_info"), "artifact_name=release-0\n")?;
        // It asks `mount` what the root file system is, and the boot environment which slot that is.
        let running = format!("echo '{} on / type ext4 (rw)'", self.directory.join("slot-1").display());
        program(&directory.join("programs/mount"), &running)?;
        let print = "for name; do case $name in mender_boot_part*) echo \"$name=1\" ;; *) echo \"$name=0\" ;; esac; done";
        program(&directory.join("programs/fw_printenv"), print)?;
        program(&directory.join("programs/fw_setenv"), "cat > /dev/null")
    }

    fn mender(&self, bench: &Bench, compression: &Compression) -> Outcome<Sample> {
        let directory = self.directory.join("mender");
        let data = directory.join("data");
        workspace::fresh_directory(&data)?;
        workspace::write(&data.join("device_type"), format!("device_type={DEVICE_TYPE}\n"))?;
        let slot = LoopDevice::new(&self.slot())?;
        let config = json!({
            "RootfsPartA": self.directory.join("slot-1"),
            "RootfsPartB": slot.0,
            "ArtifactVerifyKey": bench.keys.public,
            "DBus": { "Enabled": false },
        });
        workspace::write(&directory.join("mender.conf"), config.to_string())?;
        let (factory, share) = (directory.join("factory"), directory.join("share"));
        let over = [(&*factory, "/etc/mender"), (&*share, "/usr/share/mender")];
        let namespace = directory.join("namespace");
        workspace::fresh_directory(&namespace)?;
        let namespace = Namespace::new(&namespace, &over)
            .map_err(|error| format!("nothing can be mounted where it looks: {error}"))?;
        let mut command = namespace.command("env".as_ref());
        let path = std::env::var("PATH").unwrap_or_default();
        command.arg(format!("PATH={}:{path}", directory.join("programs").display()));
        command.arg(Client::Mender.program(&self.folder)).args(["--no-syslog", "--log-level", "error"]);
        command.arg("--data").arg(&data).arg("--config").arg(directory.join("mender.conf"));
        command.arg("--fallback-config").arg(directory.join("none.conf"));
        command.arg("install").arg(bench.artifact(compression));
        self.measure(&mut command, Client::Mender)
    }

    fn prepare_swupdate(&self, bench: &Bench) -> Outcome {
        let (certificate, key) = self.certificate("swupdate", "extendedKeyUsage=emailProtection")?;
        for compression in COMPRESSIONS.iter().filter(|of| Client::SwUpdate.takes(of) && bench.measures(of)) {
            let (packer, named) = match compression.name {
                "gzip" => ("gzip -c", "compressed = \"zlib\"; "),
                "zstd" => ("zstd -3 -qc", "compressed = \"zstd\"; "),
                _ => ("cat", ""),
            };
            // `installed-directly` streams: without it the image is first copied to a temporary file.
            let script = format!(
                r##"set -e
{packer} "$1" > payload
sum=$(sha256sum payload | cut -d " " -f 1)
echo 'software = {{ version = "1"; hardware-compatibility = [ "1.0" ]; images: ( {{ filename = "payload"; device = "'"$2"'"; type = "raw"; installed-directly = true; {named}sha256 = "'$sum'"; }} ); }}' > sw-description
openssl cms -sign -in sw-description -out sw-description.sig -signer "$3" -inkey "$4" -outform DER -nosmimecap -binary
printf 'sw-description\nsw-description.sig\npayload\n' | cpio -o -H crc --quiet > "$5"
rm payload"##
            );
            let mut command = Command::new("sh");
            command.arg("-c").arg(script).arg("sh").arg(bench.image()).arg(self.slot());
            command.arg(&certificate).arg(&key).arg(self.bundle(Client::SwUpdate, compression));
            workspace::run_quietly(command.current_dir(&self.directory))?;
        }
        Ok(())
    }

    fn swupdate(&self, compression: &Compression) -> Outcome<Sample> {
        let temporary = self.directory.join("tmp");
        workspace::fresh_directory(&temporary)?;
        let mut command = Command::new(Client::SwUpdate.program(&self.folder));
        // No marks in a boot environment: there is none.
        command
            .args(["-H", "bench:1.0", "-m", "-M", "-l", "1", "-k"])
            .arg(self.directory.join("swupdate.crt"));
        command.arg("-i").arg(self.bundle(Client::SwUpdate, compression)).env("TMPDIR", &temporary);
        self.measure(&mut command, Client::SwUpdate)
    }

    fn prepare_rauc(&self, bench: &Bench) -> Outcome {
        let (certificate, key) = self.certificate("rauc", "keyUsage=digitalSignature")?;
        let directory = self.directory.join("rauc");
        let content = directory.join("content");
        workspace::fresh_directory(&content)?;
        fs::hard_link(bench.image(), content.join("root.img"))
            .map_err(|error| format!("cannot link the image: {error}"))?;
        let manifest = format!(
            "[update]\ncompatible={DEVICE_TYPE}\nversion=1\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=root.img\n"
        );
        workspace::write(&content.join("manifest.raucm"), manifest)?;
        let slot = |number: u32, name: &str, path: &Path| {
            format!("[slot.rootfs.{number}]\ndevice={}\ntype=raw\nbootname={name}\n", path.display())
        };
        let system = format!(
            "[system]\ncompatible={DEVICE_TYPE}\nbootloader=noop\nmountprefix={0}/mounts\nstatusfile={0}/status\n\
             [keyring]\npath={1}\n{2}{3}",
            directory.display(),
            certificate.display(),
            slot(0, "A", &self.directory.join("slot-1")),
            slot(1, "B", &self.slot()),
        );
        workspace::write(&directory.join("system.conf"), system)?;
        let bus = format!(
            "<busconfig><type>system</type><listen>unix:path={}/bus</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/>\
             <allow receive_sender=\"*\"/></policy></busconfig>\n",
            directory.display()
        );
        workspace::write(&directory.join("bus.conf"), bus)?;
        for compression in COMPRESSIONS.iter().filter(|of| bench.measures(of)) {
            let squash = match compression.name {
                "none" => "-noI -noD -noF -noX",
                "lzma" => "-comp xz",
                "zstd" => "-comp zstd -Xcompression-level 3",
                _ => "-comp gzip",
            };
            let mut command = Command::new(Client::Rauc.program(&self.folder));
            command.arg("--cert").arg(&certificate).arg("--key").arg(&key).arg("--keyring").arg(&certificate);
            command.arg(format!("--mksquashfs-args={squash}")).arg("bundle").arg(&content);
            command.arg(self.bundle(Client::Rauc, compression));
            workspace::run_quietly(self.with_libraries(&mut command))?;
        }
        Ok(())
    }

    fn rauc(&self, compression: &Compression) -> Outcome<Sample> {
        let directory = self.directory.join("rauc");
        for left in ["status", "bus"] {
            if directory.join(left).exists() {
                fs::remove_file(directory.join(left)).map_err(|error| format!("{left}: {error}"))?;
            }
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", RAUC, "sh"]).arg(Client::Rauc.program(&self.folder));
        command.arg(&directory).arg(self.bundle(Client::Rauc, compression));
        self.measure(&mut command, Client::Rauc)
    }

    /// What all processes of the command took: each is waited for by its parent.
    fn measure(&self, command: &mut Command, client: Client) -> Outcome<Sample> {
        let log = self.directory.join(format!("{}.log", client.name()));
        let file = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let measured = measure(self.with_libraries(command).stderr(Stdio::from(file)));
        let (sample, _) = measured
            .map_err(|error| format!("{error}: {}", fs::read_to_string(&log).unwrap_or_default().trim()))?;
        Ok(sample)
    }

    /// All of them beside the pipe and this client.
    pub fn table<'a>(
        &self,
        results: impl Iterator<Item = (&'a Compression, &'a [Sample], &'a [Sample])>,
    ) -> String {
        let mut table = format!(
            "Other clients in the same turns ({}; the slot is compared with the image after each). CPU of all processes, \
             what was started for the turn included, and the largest sum of their resident memory:\n\n| compression | pipe | rust-ota |",
            self.versions
        );
        for peer in &self.running {
            table += &format!(" {} |", peer.client.name());
        }
        table += " rust-ota to the best of them |\n| --- | --- | --- |";
        table += &" --- |".repeat(self.running.len() + 1);
        table += "\n";
        for (place, (compression, pipe, install)) in results.enumerate() {
            if pipe.is_empty() {
                continue;
            }
            table += &format!("| {} | {} | {} |", compression.shown(), cell(pipe), cell(install));
            let mut best: Option<(f64, f64)> = None;
            for samples in self.running.iter().filter_map(|peer| peer.samples.get(place)) {
                table += &format!(" {} |", cell(samples));
                let cpu = median(samples, |sample| sample.cpu);
                if !samples.is_empty() && best.is_none_or(|(least, _)| cpu < least) {
                    best = Some((cpu, ratio(install, samples, |sample| sample.cpu)));
                }
            }
            table += &best.map_or(" |\n".to_owned(), |(_, ratio)| format!(" {ratio:.2} |\n"));
        }
        if !self.left_out.is_empty() {
            table += &format!("\nCould not be run here: {}.\n", self.left_out.join(", "));
        }
        table
    }
}

fn cell(samples: &[Sample]) -> String {
    if samples.is_empty() {
        return String::new();
    }
    let memory = median(samples, |sample| sample.tree_kib) / 1024.0;
    format!("{:.2} s, {memory:.1} MiB", median(samples, |sample| sample.cpu))
}

/// A shell program.
fn program(path: &Path, script: &str) -> Outcome {
    workspace::write(path, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(|error| format!("{}: {error}", path.display()))
}
