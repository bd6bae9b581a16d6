//! A cluster of PostgreSQL for the tests of one process, and a database for each test.
//!
//! `cargo xtask test` says where the programs are (`RUST_OTA_POSTGRES`, a folder with `initdb` and `postgres`); by itself a test
//! takes those of Debian's package `postgresql-15`, installed or unpacked into `target/postgres`. Where there are none, what needs
//! them is left out, and said.

#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests may panic and say what they skip"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Where Debian has the programs of a version.
const DEBIAN: &str = "/usr/lib/postgresql/15/bin";

/// The address of a database of its own in the cluster of this process; `None`, and a line that says so, where there is no
/// PostgreSQL.
pub(crate) fn database() -> Option<String> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Cluster::start(false, None)).as_ref()?;
    Some(cluster.database())
}

/// A cluster of its own, which does not lose what is acknowledged. It lives as long as the process.
pub(crate) fn durable_cluster() -> Option<&'static Cluster> {
    Cluster::start(true, None).map(|cluster| &*Box::leak(Box::new(cluster)))
}

/// A cluster of its own that listens on the loopback and there speaks nothing but TLS, with this certificate and its key. It
/// lives as long as the process.
pub(crate) fn cluster_with_tls(certificate: &Path, key: &Path) -> Option<&'static Cluster> {
    Cluster::start(false, Some((certificate, key))).map(|cluster| &*Box::leak(Box::new(cluster)))
}

/// The folder with the programs.
fn programs() -> Option<PathBuf> {
    if let Some(told) = std::env::var_os("RUST_OTA_POSTGRES") {
        let told = PathBuf::from(told);
        assert!(told.join("postgres").is_file(), "{} is required and has no postgres", told.display());
        return Some(told);
    }
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|at| at.join("Cargo.lock").is_file());
    let unpacked = workspace.unwrap().join("target/postgres").join(&DEBIAN[1..]);
    let found = [PathBuf::from(DEBIAN), unpacked].into_iter().find(|at| at.join("postgres").is_file());
    if found.is_none() {
        println!("SKIPPED on PostgreSQL: {DEBIAN} is not there; cargo xtask test unpacks it");
    }
    found
}

/// A table of the database at an address in which nobody writes as long as this is there.
pub(crate) struct Held {
    psql: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    table: &'static str,
}

impl Held {
    pub(crate) fn table(url: &str, table: &'static str) -> Held {
        let mut command = Command::new(programs().unwrap().join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url]);
        let mut psql = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (psql.stdin.take().unwrap(), BufReader::new(psql.stdout.take().unwrap()));
        let mut held = Held { psql, input, output, table };
        assert_eq!(held.ask(&format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE; SELECT 1;")), "1");
        held
    }

    fn ask(&mut self, sql: &str) -> String {
        writeln!(self.input, "{sql}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Whether somebody waits to write in it.
    pub(crate) fn is_waited_for(&mut self) -> bool {
        let table = self.table;
        let waiting = format!(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass AND database =
             (SELECT oid FROM pg_database WHERE datname = current_database());"
        );
        self.ask(&waiting) != "0"
    }

    pub(crate) fn give_back(self) {
        let Held { mut psql, input, .. } = self;
        // The transaction ends with its session.
        drop(input);
        psql.wait().unwrap();
    }
}

pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    /// The shells that have started it: with the input of one its folder goes.
    shells: Mutex<Vec<Child>>,
    user: Option<&'static str>,
    programs: PathBuf,
    next: AtomicU32,
    /// The port on the loopback, and in the name of the socket.
    port: u16,
}

/// This process is root: PostgreSQL does not run as root.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Cluster {
    fn start(durable: bool, tls: Option<(&Path, &Path)>) -> Option<Cluster> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let user = is_root().then_some("nobody");
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        // Somebody else may take it before the server does; then it does not start, and says so.
        let port = match tls {
            Some(_) => TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
            None => 5432,
        };
        let cluster =
            Cluster { folder, shells: Mutex::default(), user, programs, next: AtomicU32::new(0), port };
        cluster.owned(&data);
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
        let mut settings = "max_connections = 200\nshared_buffers = 32MB\nautovacuum = off\n\
                            max_wal_size = 256MB\nlog_min_messages = panic\n"
            .to_owned();
        if !durable {
            settings.push_str("fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n");
        }
        settings.push_str(&format!("unix_socket_directories = '{}'\n", data.display()));
        settings.push_str(&format!("port = {port}\n"));
        match tls {
            None => settings.push_str("listen_addresses = ''\n"),
            Some((certificate, key)) => {
                settings.push_str("listen_addresses = '127.0.0.1'\nssl = on\n");
                for (from, name) in [(certificate, "server.crt"), (key, "server.key")] {
                    let to = data.join(name);
                    fs::copy(from, &to).unwrap();
                    fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
                    cluster.owned(&to);
                }
                let access = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
                fs::write(data.join("pg_hba.conf"), access).unwrap();
            }
        }
        let path = data.join("postgresql.conf");
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, before + &settings).unwrap();
        cluster.run();
        Some(cluster)
    }

    /// Gives a file to who runs the server.
    fn owned(&self, path: &Path) {
        if let Some(user) = self.user {
            let chown = Command::new("chown").arg(user).arg(path).status().unwrap();
            assert!(chown.success());
        }
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
            // Nobody tells when it answers.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the server as a power cut does.
    pub(crate) fn kill(&self) {
        self.end(rustix::process::Signal::KILL);
        // They name a process that there still is, by name.
        for lock in ["postmaster.pid".to_owned(), format!(".s.PGSQL.{}.lock", self.port)] {
            fs::remove_file(self.data().join(lock)).unwrap();
        }
    }

    /// Ends the server as its administrator does: sessions end, and everything is written.
    pub(crate) fn stop(&self) {
        self.end(rustix::process::Signal::INT);
    }

    fn end(&self, signal: rustix::process::Signal) {
        let pid = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let pid: i32 = pid.lines().next().unwrap().parse().unwrap();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let family: Vec<String> =
            children.split_whitespace().map(str::to_owned).chain([pid.to_string()]).collect();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        // Its children see that it is gone, and end: a new one does not start before. The shell that has started it does not
        // look, so it stays as a name without a process.
        for pid in family {
            let is_there = || {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
            };
            while is_there() {
                // Nobody tells when the child of another process has ended.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn psql(&self, database: &str, sql: &str) -> bool {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-X", "-q", "-U", "test", "-d", database, "-c", sql, "-h"]).arg(self.data());
        command.args(["-p", &self.port.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// The address of a database of its own.
    pub(crate) fn database(&self) -> String {
        let name = format!("t{}", self.next.fetch_add(1, Ordering::Relaxed));
        assert!(self.psql("postgres", &format!("CREATE DATABASE {name}")), "CREATE DATABASE");
        format!("host={} port={} user=test dbname={name}", self.data().display(), self.port)
    }

    /// The same for a cluster with TLS, over the network.
    pub(crate) fn database_on_the_loopback(&self, host: &str) -> String {
        let local = self.database();
        let name = local.rsplit('=').next().unwrap_or_default();
        format!("postgres://test@{host}:{}/{name}", self.port)
    }
}
