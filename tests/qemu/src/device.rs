//! A device: a board with its disks, in a folder, and the server that it talks to. It is turned on again and again.

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::choice::Generator;

use crate::boards::{Board, Disk, EnvFile};
use crate::fleet::Fleet;
use crate::kit::Kit;
use crate::machine::{Machine, Seen};
use crate::power::{self, Cut};
use crate::rootfs::{self, System};
use crate::trace::{Point, Run, Stretch, Trace};
use crate::{Outcome, disk};

/// How long a system may take from power on until it says that it is up. Ten times what it takes here.
pub const BOOT: Duration = Duration::from_secs(240);
/// How long an update may take.
pub const UPDATE: Duration = Duration::from_secs(900);
/// Where the environment is in the file of a flash: both copies are in it.
const OWN_BYTES: usize = 512 * 1024;
/// What the test systems say when they are up.
pub const UP: &str = "rota-test: up ";

/// How many times what happened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Times that it was turned on.
    pub boots: u64,
    /// Times that its power was cut.
    pub cuts: u64,
    /// Updates that came to their end, whichever.
    pub updates: u64,
    /// Writes that were not flushed when the power was cut.
    pub at_risk: u64,
    /// Those of them that were lost, wholly or in part.
    pub lost: u64,
    /// Different states that cuts left its disks in, and from which it was turned on again.
    pub states: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.boots += other.boots;
        self.cuts += other.cuts;
        self.updates += other.updates;
        self.at_risk += other.at_risk;
        self.lost += other.lost;
        self.states += other.states;
    }
}

/// What a device is made with.
pub struct Make {
    /// The system in slot A.
    pub system: System,
    /// MiB of a slot; the board's own image length without.
    pub slot_mib: Option<u64>,
    /// Added to the configuration on the data partition.
    pub config: Value,
    /// Added to the data partition: path and content.
    pub data: Vec<(String, Vec<u8>)>,
}

impl Make {
    /// The usual.
    pub fn new() -> Make {
        Make { system: System::new("1.0"), slot_mib: None, config: json!({}), data: Vec::new() }
    }
}

/// The device.
pub struct Device<'a> {
    kit: &'a Kit,
    /// What it is.
    pub board: &'a dyn Board,
    /// Its server.
    pub fleet: Fleet,
    directory: PathBuf,
    disks: Vec<Disk>,
    /// What the files of a recorded run are called.
    run: String,
    /// Further words for QEMU.
    pub qemu: Vec<String>,
    /// MiB of memory.
    pub memory_mib: u64,
    /// What happened so far.
    pub tally: Tally,
}

impl<'a> Device<'a> {
    /// Makes one in the empty `directory`.
    pub fn make(
        kit: &'a Kit,
        board: &'a dyn Board,
        directory: &Path,
        fleet: Fleet,
        make: &Make,
    ) -> Outcome<Device<'a>> {
        let mut config = json!({
            "ServerURL": format!("http://10.0.2.2:{}", fleet.port()),
            "UpdatePollIntervalSeconds": 2,
            "InventoryPollIntervalSeconds": 600,
            "RetryPollIntervalSeconds": 1,
        });
        if let (Some(config), Some(more)) = (config.as_object_mut(), make.config.as_object()) {
            config.extend(more.clone());
        }
        let tree = directory.join("data.tree");
        rootfs::data_tree(&tree, board, &config, kit.keys.device.as_bytes())?;
        for (path, content) in &make.data {
            let path = tree.join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
            }
            crate::write(&path, content)?;
        }
        let data = directory.join("data.ext4");
        disk::ext4(&data, 24, "data", &tree)?;
        let root = kit.root(board, &make.system)?;
        let slot_mib = make.slot_mib.unwrap_or(board.root_mib());
        let disks = board.disks(kit, directory, &root, slot_mib, &data)?;
        Ok(Device {
            kit,
            board,
            fleet,
            directory: directory.to_path_buf(),
            disks,
            run: "run".to_owned(),
            qemu: Vec::new(),
            memory_mib: board.memory_mib(),
            tally: Tally::default(),
        })
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Turns it on.
    pub fn start(&mut self) -> Outcome<Machine> {
        let command = self.command(false)?;
        let log = self.next_log();
        Machine::start(&command, &log)
    }

    /// Turns it on with every write of its disks written down, so that [`Device::cut_power`] can be called.
    pub fn start_recorded(&mut self) -> Outcome<Machine> {
        for index in 0..self.disks.len() {
            power::copy_sparse(&self.disks[index].image, &self.base(index))?;
            let record = self.record(index);
            std::fs::File::create(&record).map_err(|error| format!("{}: {error}", record.display()))?;
        }
        let command = self.command(true)?;
        let log = self.next_log();
        Machine::start(&command, &log)
    }

    /// Pulls the plug of a recorded machine: what was not flushed is on its disks in part.
    pub fn cut_power(&mut self, machine: Machine, random: &mut Generator) -> Outcome<Cut> {
        machine.kill();
        self.tally.states += 1;
        self.after_cut(&vec![u64::MAX; self.disks.len()], random)
    }

    /// Makes the disks what a cut may have left after so many entries of the log of each.
    fn after_cut(&mut self, entries: &[u64], random: &mut Generator) -> Outcome<Cut> {
        self.tally.cuts += 1;
        let mut all = Cut::default();
        for (index, upto) in entries.iter().enumerate() {
            let Disk { image, places, .. } = &self.disks[index];
            let data_at = places.map(|places| places.data);
            let cut = power::cut(&self.base(index), &self.record(index), *upto, image, data_at, random)?;
            all.writes += cut.writes;
            all.at_risk += cut.at_risk;
            all.lost += cut.lost;
            all.state = power::hash(&[all.state, cut.state]);
        }
        self.tally.at_risk += all.at_risk;
        self.tally.lost += all.lost;
        Ok(all)
    }

    /// Runs a whole update that succeeds, and writes down how, so that [`Device::cut_at`] can be called.
    pub fn record_update(&mut self, deployment: &str) -> Outcome<Trace> {
        let mut trace = Trace::default();
        for run in 0..2 {
            self.run = format!("run-{run}");
            let mut machine = self.start_recorded()?;
            let mut recorded = Run::default();
            let end = self.follow(&mut machine, deployment, run, &mut recorded)?;
            machine.kill();
            recorded.written = self.environment_entries()?;
            trace.runs.push(recorded);
            match end.as_deref() {
                Some("success") => return Ok(trace),
                Some(end) => return Err(format!("the update that is written down ended with {end:?}")),
                None => {}
            }
        }
        Err("the update that is written down took more than two boots".into())
    }

    /// Notes how far the disks are, and what the server knows at that time, until the machine ends or has asked again after
    /// the end of `deployment`.
    fn follow(
        &mut self,
        machine: &mut Machine,
        deployment: &str,
        run: usize,
        recorded: &mut Run,
    ) -> Outcome<Option<String>> {
        let deadline = Instant::now() + UPDATE;
        let keep = |device: &Device, number: usize| -> Outcome<(PathBuf, usize)> {
            let kept = device.path(&format!("server-{run}-{number}"));
            let asked = device.fleet.keep(&kept)?;
            Ok((kept, asked))
        };
        let (mut kept, mut asked) = keep(self, 0)?;
        let mut reports = self.fleet.reports();
        let mut own = self.own_environment()?;
        recorded.stretches.push(Stretch { server: kept.clone(), own: own.clone(), entries: Vec::new() });
        let mut ended: Option<(String, usize)> = None;
        while Instant::now() < deadline {
            let is_on = machine.goes_on(Duration::from_millis(2));
            // First how far the disks are: if the rest is unchanged afterwards, it was so at that point.
            let entries = self.entries();
            let own_now = self.own_environment()?;
            let asked_now = self.fleet.questions();
            if own_now == own && asked_now == asked {
                if let Some(stretch) = recorded.stretches.last_mut() {
                    if stretch.entries.last() != Some(&entries) {
                        stretch.entries.push(entries);
                    }
                }
            } else {
                if asked_now != asked {
                    // What a request changes is stored before it counts as answered. A folder that was copied in between
                    // knows what the device had not said yet: nothing can be begun from there.
                    if self.fleet.reports() != reports && self.fleet.is_still(&kept)? {
                        recorded.forget(&kept);
                    }
                    reports = self.fleet.reports();
                    (kept, asked) = keep(self, recorded.stretches.len())?;
                    ended = ended.or_else(|| Some((self.fleet.outcome(deployment)?, asked)));
                }
                own = own_now;
                recorded.stretches.push(Stretch {
                    server: kept.clone(),
                    own: own.clone(),
                    entries: Vec::new(),
                });
            }
            // What it does after its last report is part of the update.
            let is_over = ended.as_ref().is_some_and(|(_, then)| asked >= then + 2);
            if !is_on || is_over {
                self.tally.updates += u64::from(ended.is_some());
                return Ok(ended.map(|(end, _)| end));
            }
        }
        Err(format!("no end of the update that is written down; logs in {}", self.directory.display()))
    }

    /// How many entries the log of each disk has. A later one of one disk never stands beside an earlier one of another.
    fn entries(&self) -> Vec<u64> {
        let read = || (0..self.disks.len()).map(|index| power::entries(&self.record(index))).collect();
        let mut entries: Vec<u64> = read();
        loop {
            let again = read();
            if again == entries {
                return entries;
            }
            entries = again;
        }
    }

    /// Cuts the power at a point of a recorded update: disks and server are what they were then, but for what was lost.
    pub fn cut_at(&mut self, trace: &Trace, point: &Point, random: &mut Generator) -> Outcome<Cut> {
        let stretch = &trace.runs[point.run].stretches[point.stretch];
        self.run = format!("run-{}", point.run);
        self.fleet.go_back(&stretch.server)?;
        let mut own = stretch.own.iter();
        for file in self.board.environment() {
            if let (EnvFile::Own { name }, Some((at, content))) = (file, own.next()) {
                let path = self.path(name);
                let failed = |error: std::io::Error| format!("{}: {error}", path.display());
                let flash = std::fs::File::options().write(true).open(&path).map_err(failed)?;
                flash.write_all_at(content, *at).map_err(failed)?;
            }
        }
        self.after_cut(&point.entries, random)
    }

    /// After a recorded update: the disk turns out to have kept nothing of what was written to slot B, though it was
    /// flushed.
    pub fn lose_slot_b(&mut self, trace: &Trace) -> Outcome {
        let last = trace.runs.len().saturating_sub(1);
        let stretch = trace.runs[last].stretches.len().saturating_sub(1);
        let entries = vec![u64::MAX; self.disks.len()];
        // Everything is there.
        self.cut_at(trace, &Point { run: last, stretch, entries }, &mut Generator::new(0))?;
        self.run = "run-0".to_owned();
        for (index, disk) in self.disks.iter().enumerate() {
            let Some(places) = disk.places else { continue };
            power::take_back(&self.base(index), &disk.image, &(places.slots[1]..places.data))?;
        }
        Ok(())
    }

    /// Turns it on until a system says that it is up, at most `boots` times. Gives the running machine, and which slot
    /// and version it is.
    pub fn come_up(&mut self, boots: u32) -> Outcome<(Machine, Running)> {
        for _boot in 0..boots {
            let mut machine = self.start()?;
            if let Seen::Line(line) = machine.wait_for(UP, BOOT)? {
                return Ok((machine, Running::parse(&line)?));
            }
        }
        Err(format!("it did not come up in {boots} boots; logs in {}", self.directory.display()))
    }

    /// Runs it, and turns it on again after each restart, until the server knows the end of `deployment`. Gives the
    /// end, the machine that runs then, and what it is.
    pub fn finish(&mut self, deployment: &str, boots: u32) -> Outcome<(String, Machine, Running)> {
        self.finish_from(None, deployment, boots)
    }

    /// The same, beginning with a machine that is on already.
    pub fn finish_on(
        &mut self,
        machine: Machine,
        deployment: &str,
        boots: u32,
    ) -> Outcome<(String, Machine, Running)> {
        self.finish_from(Some(machine), deployment, boots + 1)
    }

    fn finish_from(
        &mut self,
        mut on: Option<Machine>,
        deployment: &str,
        runs: u32,
    ) -> Outcome<(String, Machine, Running)> {
        for _run in 0..runs {
            let mut machine = match on.take() {
                Some(machine) => machine,
                None => self.start()?,
            };
            let Some(finished) = self.finish_with(&mut machine, deployment)? else { continue };
            // The server may have heard of the end before the power went: then the system is still to come up.
            let up = machine.until("no system came up", BOOT, |lines| {
                lines.iter().rev().find(|line| line.contains(UP)).cloned()
            })?;
            if let Some(up) = up {
                return Ok((finished, machine, Running::parse(&up)?));
            }
        }
        let status = self.fleet.status(deployment);
        Err(format!("no end in {runs} boots, status {status:?}; logs in {}", self.directory.display()))
    }

    /// Waits with a machine until the server knows the end of `deployment`; `None` when the machine ends first.
    pub fn finish_with(&mut self, machine: &mut Machine, deployment: &str) -> Outcome<Option<String>> {
        let fleet = &self.fleet;
        let finished =
            machine.until("no end of the deployment", UPDATE, |_lines| fleet.outcome(deployment))?;
        self.tally.updates += u64::from(finished.is_some());
        Ok(finished)
    }

    /// The log that comes with a failure, after it.
    pub fn log_of(&self, machine: &mut Machine, deployment: &str) -> Outcome<String> {
        let log =
            machine.until("no log came with the failure", BOOT, |_lines| self.fleet.log(deployment).ok())?;
        log.ok_or_else(|| "the machine ended before its log came".to_owned())
    }

    /// Lets a running machine go on for as long as it writes down nothing new: until it said `marker`.
    pub fn expect(&self, machine: &mut Machine, marker: &str) -> Outcome<String> {
        match machine.wait_for(marker, UPDATE)? {
            Seen::Line(line) => Ok(line),
            Seen::Ended => Err(format!("the machine ended before {marker:?}; {}", self.directory.display())),
        }
    }

    /// Makes a signed artifact of `system` and orders it.
    pub fn deploy(&self, system: &System) -> Outcome<String> {
        let artifact = self.artifact(system)?;
        self.fleet.deploy(&artifact, &system.version)
    }

    /// A signed artifact of `system`, made once for all devices of this board.
    pub fn artifact(&self, system: &System) -> Outcome<PathBuf> {
        let image = self.kit.root(self.board, system)?;
        let path = self.path(&format!("{}.mender", system.version));
        crate::fleet::rootfs_artifact(
            &system.version,
            &image,
            rootfs::DEVICE_TYPE,
            Some(&self.kit.keys.signer),
            &path,
        )?;
        Ok(path)
    }

    /// The image of `system`.
    pub fn image(&self, system: &System) -> Outcome<PathBuf> {
        self.kit.root(self.board, system)
    }

    /// Writes an artifact with the host tool: the words of the command, without what all of them have, and the name in it.
    pub fn write_artifact(&self, command: &[&OsStr], name: &str) -> Outcome<PathBuf> {
        let path = self.path(&format!("{name}.mender"));
        let key = self.kit.keys.private_file.as_os_str();
        let all = ["--no-progress", "-t", rootfs::DEVICE_TYPE, "-n", name, "-o"].map(OsStr::new);
        let words = [command, &all, &[path.as_os_str(), OsStr::new("-k"), key]].concat();
        crate::fleet::host_tool(&words)?;
        Ok(path)
    }

    /// That the slot which runs has the very bytes of its system's image. The root file system is mounted read-only.
    pub fn expect_whole(&self, running: &Running) -> Outcome {
        self.expect_image(running, &System::new(&running.version))
    }

    /// The same of a system that is not as usual.
    pub fn expect_image(&self, running: &Running, system: &System) -> Outcome {
        let image = self.image(system)?;
        let found = self.disks.iter().find_map(|disk| Some((disk, disk.places?)));
        let (disk, places) = found.ok_or("no disk has the slots")?;
        let at = places.slots[usize::from(running.slot == "b")];
        if disk::has(&disk.image, at, &image)? {
            return Ok(());
        }
        Err(format!("slot {} runs {} and is not what that was", running.slot, running.version))
    }

    /// That a system in slot B was started on trial in a boot after the first `boots`.
    pub fn expect_trial(&self, boots: u64) -> Outcome {
        for boot in boots + 1..=self.tally.boots {
            let log = self.serial_log(boot);
            let said = String::from_utf8_lossy(&crate::read(&log)?).into_owned();
            let mut decisions = said.lines().filter(|line| line.contains("rust-ota: boots slot b "));
            if decisions.any(|line| line.contains("upgrade_available=1")) {
                return Ok(());
            }
        }
        Err("slot B was never started on trial".into())
    }

    /// Writes since it was turned on, recorded, to the partition with the boot environment: how many. The first sector is
    /// left out, where Linux notes that it has the file system mounted.
    pub fn writes_to_environment(&self) -> Outcome<usize> {
        Ok(self.environment_entries()?.len())
    }

    /// Those writes: the disk, and which entry of its log.
    fn environment_entries(&self) -> Outcome<Vec<(usize, u64)>> {
        let mut found = std::collections::BTreeSet::new();
        for file in self.board.environment() {
            let EnvFile::Fat { disk, at, path: _ } = file else { continue };
            let end = self.disks[disk].places.map_or(u64::MAX, |places| places.slots[0]);
            let writes = power::writes(&self.record(disk))?.into_iter();
            let writes = writes.filter(|write| write.at < end && write.at + write.bytes > at + 512);
            found.extend(writes.map(|write| (disk, write.entry)));
        }
        Ok(found.into_iter().collect())
    }

    /// What is in the boot environment outside of the disks: where in its file, and what.
    fn own_environment(&self) -> Outcome<Vec<(u64, Vec<u8>)>> {
        let mut found = Vec::new();
        for file in self.board.environment() {
            let EnvFile::Own { name } = file else { continue };
            let path = self.path(name);
            let mut content = vec![0; OWN_BYTES];
            std::fs::File::open(&path)
                .and_then(|flash| flash.read_exact_at(&mut content, 0))
                .map_err(|error| format!("{}: {error}", path.display()))?;
            found.push((0, content));
        }
        Ok(found)
    }

    /// The files of the boot environment, byte by byte.
    pub fn environment(&self) -> Outcome<Vec<Vec<u8>>> {
        let files = self.board.environment();
        let read = |file: &EnvFile| match file {
            EnvFile::Fat { disk, at, path } => disk::read_fat(&self.disks[*disk].image, *at, path),
            EnvFile::Own { name } => crate::read(&self.path(name)),
        };
        files.iter().map(read).collect()
    }

    /// The disks.
    pub fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// The command with the console on the terminal.
    pub fn interactive(&self) -> Outcome<Command> {
        self.command(false)
    }

    fn command(&self, recorded: bool) -> Outcome<Command> {
        let mut qemu = self.board.machine(self.kit, &self.directory, self.memory_mib)?;
        qemu.args(["-nographic", "-nodefaults", "-serial", "stdio", "-no-reboot"]);
        for (index, disk) in self.disks.iter().enumerate() {
            let file = disk.image.display();
            qemu.args(["-blockdev", &format!("driver=file,node-name=file{index},filename={file}")]);
            let raw = format!("driver=raw,node-name=raw{index},file=file{index}");
            qemu.args(["-blockdev", &raw]);
            let node = if recorded {
                let record = self.record(index);
                let record = format!("driver=file,node-name=log{index},filename={}", record.display());
                qemu.args(["-blockdev", &record]);
                let record = format!(
                    "driver=blklogwrites,node-name=record{index},file=raw{index},log=log{index},\
                     log-super-update-interval=1"
                );
                qemu.args(["-blockdev", &record]);
                format!("record{index}")
            } else {
                format!("raw{index}")
            };
            qemu.args(["-device", &format!("{},drive={node}", disk.device)]);
        }
        qemu.args(["-netdev", "user,id=n0", "-device", self.board.network_device()]);
        qemu.args(&self.qemu);
        Ok(qemu)
    }

    fn base(&self, disk: usize) -> PathBuf {
        self.path(&format!("base-{}-{disk}.img", self.run))
    }

    /// Where the writes to a disk are written down.
    pub fn record(&self, disk: usize) -> PathBuf {
        self.path(&format!("writes-{}-{disk}.log", self.run))
    }

    fn next_log(&mut self) -> PathBuf {
        self.tally.boots += 1;
        self.serial_log(self.tally.boots)
    }

    fn serial_log(&self, boot: u64) -> PathBuf {
        self.path(&format!("serial-{boot:03}.log"))
    }
}

/// The system that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// `a` or `b`.
    pub slot: String,
    /// Its version.
    pub version: String,
}

impl Running {
    fn parse(line: &str) -> Outcome<Running> {
        let word = |name: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.map(str::to_owned).ok_or_else(|| format!("{line:?} does not say {name}"))
        };
        Ok(Running { slot: word("slot=")?, version: word("version=")? })
    }
}
