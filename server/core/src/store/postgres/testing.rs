//! A cluster of PostgreSQL for the tests of one process, and a database for each test.
//!
//! The programs are Debian's (package `postgresql-15`); `RUST_OTA_POSTGRES` names another folder with `initdb` and
//! `postgres`. Without them a test says that it is left out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::Target;

/// Where Debian has the programs of a version.
const DEBIAN: &str = "/usr/lib/postgresql/15/bin";

pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    /// The shells that have started it: with the input of one its folder goes.
    shells: Mutex<Vec<Child>>,
    user: Option<&'static str>,
    programs: PathBuf,
    next: AtomicU32,
}

/// A database of its own.
pub(crate) struct Database {
    pub(crate) url: String,
}

impl Database {
    pub(crate) fn target(&self) -> Target {
        Target::parse(&self.url, None, None).unwrap()
    }
}

/// A database in the cluster of this process; `None`, and a line that says so, where there is no PostgreSQL.
pub(crate) fn database() -> Option<Database> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Cluster::start(false)).as_ref()?;
    Some(cluster.database())
}

/// A cluster of its own, which does not lose what is acknowledged. It lives as long as the process.
pub(crate) fn durable_cluster() -> Option<&'static Cluster> {
    Cluster::start(true).map(|cluster| &*Box::leak(Box::new(cluster)))
}

/// This process is root: PostgreSQL does not run as root.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Cluster {
    fn start(durable: bool) -> Option<Cluster> {
        let programs =
            std::env::var_os("RUST_OTA_POSTGRES").map_or_else(|| PathBuf::from(DEBIAN), PathBuf::from);
        if !programs.join("postgres").is_file() {
            eprintln!(
                "left out: there is no PostgreSQL in {} (Debian's package postgresql-15)",
                programs.display()
            );
            return None;
        }
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let user = is_root().then_some("nobody");
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        if user.is_some() {
            let chown = Command::new("chown").arg("nobody").arg(&data).status().unwrap();
            assert!(chown.success());
        }
        let cluster = Cluster { folder, shells: Mutex::default(), user, programs, next: AtomicU32::new(0) };
        let words = cluster.command("initdb");
        let made = Command::new(&words[0])
            .args(&words[1..])
            .args([
                "--no-sync",
                "--no-instructions",
                "--auth=trust",
                "--username=test",
                "--encoding=UTF8",
                "--locale=C",
            ])
            .arg("-D")
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb");
        let mut settings =
            "listen_addresses = ''\nmax_connections = 200\nshared_buffers = 32MB\nautovacuum = off\n\
                            max_wal_size = 256MB\nlog_min_messages = panic\n"
                .to_owned();
        if !durable {
            settings.push_str("fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n");
        }
        settings.push_str(&format!("unix_socket_directories = '{}'\n", data.display()));
        let path = data.join("postgresql.conf");
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, before + &settings).unwrap();
        cluster.run();
        Some(cluster)
    }

    /// A program, and who runs it.
    fn command(&self, name: &str) -> Vec<String> {
        let mut words: Vec<String> = match self.user {
            None => Vec::new(),
            Some(user) => ["setpriv", "--reuid", user, "--clear-groups"].map(str::to_owned).to_vec(),
        };
        words.push(self.programs.join(name).display().to_string());
        words
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the server, and waits until it answers.
    pub(crate) fn run(&self) {
        // A shell that ends it and takes the folder away when its input ends, which is when this process does: nothing of the
        // test harness runs then.
        const SHELL: &str =
            r#"folder=$1; shift; "$@" & read -r _; kill -QUIT $! 2>/dev/null; wait $!; rm -rf "$folder""#;
        let mut shell = Command::new("sh");
        shell
            .args(["-c", SHELL, "sh"])
            .arg(self.folder.path())
            .args(self.command("postgres"))
            .arg("-D")
            .arg(self.data());
        let child = shell.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        self.shells.lock().unwrap_or_else(PoisonError::into_inner).push(child);
        let begun = Instant::now();
        while !self.psql("postgres", "SELECT 1") {
            assert!(begun.elapsed() < Duration::from_secs(30), "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the server as a power cut does.
    pub(crate) fn kill(&self) {
        let pid = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let pid: i32 = pid.lines().next().unwrap().parse().unwrap();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let family: Vec<String> =
            children.split_whitespace().map(str::to_owned).chain([pid.to_string()]).collect();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // Its children see that it is gone, and end: a new one does not start before. The shell that has started it does not
        // look, so it stays as a name without a process.
        for pid in family {
            let is_there = || {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
            };
            while is_there() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // They name a process that there still is, by name.
        for lock in ["postmaster.pid", ".s.PGSQL.5432.lock"] {
            fs::remove_file(self.data().join(lock)).unwrap();
        }
    }

    fn psql(&self, database: &str, sql: &str) -> bool {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-X", "-q", "-U", "test", "-d", database, "-c", sql, "-h"]).arg(self.data());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    pub(crate) fn database(&'static self) -> Database {
        let name = format!("t{}", self.next.fetch_add(1, Ordering::Relaxed));
        assert!(self.psql("postgres", &format!("CREATE DATABASE {name}")), "CREATE DATABASE");
        Database { url: format!("host={} user=test dbname={name}", self.data().display()) }
    }
}
