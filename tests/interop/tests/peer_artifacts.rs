//! Artifacts as other tools write them: archives of other tars, streams of other compressors, windows of other releases.
//! Each is installed, or refused with words that say what to do.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use client_core::artifact::{self, ArtifactError, Limits, Trust};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Reads an artifact to its end.
fn read(path: &Path, limits: &Limits) -> Result<Vec<(String, Vec<u8>)>, ArtifactError> {
    let mut artifact = artifact::open(File::open(path).unwrap(), &Trust::DangerUnsigned, limits)?;
    let mut files = Vec::new();
    while let Some(mut file) = artifact.payload.next_file()? {
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(ArtifactError::from_io)?;
        files.push((file.name().to_owned(), content));
    }
    Ok(files)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/artifacts").join(name)
}

#[test]
fn artifacts_that_other_tools_wrote_are_read_to_their_end() {
    for name in [
        "zstd_better-1000000.mender",
        "zstd_better-17000000.mender",
        "sf-better.mender",
        "pzstd.mender",
        "gzip-zero-padded.mender",
        "node-tar.mender",
    ] {
        let files =
            read(&fixture(name), &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!files.is_empty(), "{name}");
    }
}

#[test]
fn what_is_refused_says_why_and_what_to_do() {
    let refused = |name: &str| read(&fixture(name), &Limits::default()).unwrap_err().to_string();
    let long = refused("zstd-long28.mender");
    assert!(
        long.contains("256 MiB") && long.contains("32 MiB are allowed") && long.contains("--long"),
        "{long}"
    );
    let pixz = refused("pixz.mender");
    assert!(pixz.contains("pixz -t"), "{pixz}");
}

#[test]
fn a_device_without_the_memory_for_a_window_refuses_before_it_reads_the_payload() {
    let mut limits = Limits::default();
    limits.memory_bytes = Some(10 << 20);
    let path = fixture("zstd_better-17000000.mender");
    let file = File::open(path).unwrap();
    let refused = artifact::open(file, &Trust::DangerUnsigned, &limits).unwrap_err().to_string();
    assert!(refused.contains("17 MiB of memory") && refused.contains("10 MiB are free"), "{refused}");
}

/// An artifact whose data member is made by other programs.
struct Bench {
    folder: tempfile::TempDir,
}

const FILES: [&str; 2] = ["image.ext4", "b.txt"];

impl Bench {
    fn new() -> Bench {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        let noise: Vec<u8> =
            (0..700_000u32).flat_map(|n| (n / 3).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        // Noise with a hole in it.
        let image = [&noise[..], &vec![0; 4 << 20], &noise[..]].concat();
        fs::create_dir(bench.at("payload")).unwrap();
        fs::write(bench.at("payload/image.ext4"), image).unwrap();
        fs::write(bench.at("payload/b.txt"), "text\n").unwrap();
        let mut arguments: Vec<String> = ["write", "module-image", "-T", "m", "-n", "n", "-t", "d"]
            .iter()
            .map(|word| (*word).to_owned())
            .collect();
        for name in FILES {
            arguments.extend(["-f".to_owned(), bench.at("payload").join(name).display().to_string()]);
        }
        let none = ["--compression", "none", "-o"].map(str::to_owned);
        arguments.extend(none.into_iter().chain([bench.at("plain.mender").display().to_string()]));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let done = rust_ota_artifact::run(arguments.iter().map(Into::into), &mut out, &mut err);
        assert!(done, "{}", String::from_utf8_lossy(&err));
        bench.shell("mkdir parts && tar -xf plain.mender -C parts && rm parts/data/0000.tar");
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn shell(&self, script: &str) {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(self.folder.path()).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The artifact whose data member is what `script` writes from the payload to `$OUT`.
    fn artifact(&self, suffix: &str, script: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let name = format!("data/0000.tar{suffix}");
        self.shell(&format!(
            "rm -f parts/data/*; OUT=$PWD/parts/{name}; cd payload; {script}; cd ../parts; \
             tar --format=ustar --owner=0 --group=0 -cf ../made.mender version manifest header.tar {name}"
        ));
        read(&self.at("made.mender"), &Limits::default()).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn taken(&self, suffix: &str, script: &str) {
        let files = self.artifact(suffix, script).unwrap_or_else(|error| panic!("{script}: {error}"));
        assert_eq!(files.len(), FILES.len(), "{script}");
        for (name, content) in files {
            assert!(content == fs::read(self.at("payload").join(&name)).unwrap(), "{script}: {name}");
        }
    }

    #[track_caller]
    fn refused(&self, suffix: &str, script: &str, words: &[&str]) {
        let error = self.artifact(suffix, script).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{script}: {error}");
    }
}

/// Whether a program that few machines have is here; without it a part of a test says that it was left out.
fn optional(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        println!("not compared: {program} is not installed");
    }
    found
}

#[test]
fn streams_of_all_compressors_are_taken_or_refused_by_name() {
    let bench = Bench::new();
    let tar = "tar --format=ustar -cf - image.ext4 b.txt";
    bench.taken(".gz", &format!("{tar} | gzip -9 > $OUT"));
    bench.taken(".gz", &format!("{tar} | gzip > $OUT; head -c 3000 /dev/zero >> $OUT"));
    bench.taken(
        ".gz",
        &format!("{tar} > ../t; head -c 1000000 ../t | gzip > $OUT; tail -c +1000001 ../t | gzip >> $OUT"),
    );
    if interop::tool("xz").is_some() {
        bench.taken(".xz", &format!("{tar} | xz -9 > $OUT"));
        bench.taken(
            ".xz",
            &format!("{tar} | xz -T2 --block-size=1MiB > $OUT; head -c 4096 /dev/zero >> $OUT"),
        );
        bench.refused(
            ".xz",
            &format!("{tar} | xz --lzma2=preset=6,dict=128MiB > $OUT"),
            &["128 MiB", "64 MiB are allowed"],
        );
    }
    if optional("zstd") {
        for options in ["-1", "-3", "-19", "-T2 -B1000000", "--long=25", "--no-check"] {
            bench.taken(".zst", &format!("{tar} | zstd -q {options} > $OUT"));
        }
        bench.taken(".zst", &format!("{tar} | zstd -q > $OUT; head -c 513 /dev/zero >> $OUT"));
        bench.taken(
            ".zst",
            &format!("printf 'P*M\\030\\004\\000\\000\\000abcd' > $OUT; {tar} | zstd -q >> $OUT"),
        );
        let words = ["128 MiB", "32 MiB are allowed", "--ultra"];
        bench.refused(".zst", &format!("{tar} | zstd -q --ultra -22 > $OUT"), &words);
        let words = ["64 MiB", "32 MiB are allowed"];
        bench.refused(".zst", &format!("{tar} | zstd -q --long=26 > $OUT"), &words);
    }
    if optional("pzstd") {
        bench.taken(".zst", &format!("{tar} > ../t; pzstd -q -p 3 ../t -o $OUT"));
    }
    if optional("pigz") {
        bench.taken(".gz", &format!("{tar} | pigz -p 3 > $OUT"));
    }
    if optional("pixz") {
        bench.taken(".xz", &format!("{tar} | pixz -t > $OUT"));
        bench.refused(".xz", &format!("{tar} | pixz > $OUT"), &["pixz -t"]);
    }
}

#[test]
fn archives_of_all_tars_are_taken_or_refused_by_name() {
    let bench = Bench::new();
    for format in ["ustar", "gnu", "oldgnu", "posix"] {
        bench.taken("", &format!("tar --format={format} -cf $OUT image.ext4 b.txt"));
    }
    // Times where POSIX has the prefix.
    bench.taken("", "tar --format=gnu --incremental -cf $OUT image.ext4 b.txt");
    bench.refused("", "tar --format=v7 -cf $OUT image.ext4 b.txt", &["V7", "--format=ustar"]);
    bench.refused(
        "",
        "fallocate -d image.ext4; tar --format=gnu --sparse -cf $OUT image.ext4 b.txt",
        &["sparse", "--sparse"],
    );
    bench.refused("", "tar --format=posix --sparse -cf $OUT image.ext4 b.txt", &["sparse", "--sparse"]);
    if interop::tool("python3").is_some() {
        for format in ["USTAR", "GNU", "PAX"] {
            bench.taken("", &format!(
                "python3 -c 'import sys, tarfile; t = tarfile.open(sys.argv[1], \"w\", format=tarfile.{format}_FORMAT); \
                 t.add(\"image.ext4\"); t.add(\"b.txt\"); t.close()' $OUT"
            ));
        }
    }
    if optional("bsdtar") {
        bench.taken("", "bsdtar --no-read-sparse -cf $OUT image.ext4 b.txt");
        bench.taken("", "bsdtar --no-read-sparse --format=ustar -cf $OUT image.ext4 b.txt");
        bench.refused("", "bsdtar -cf $OUT image.ext4 b.txt", &["--no-read-sparse"]);
        bench.refused(
            "",
            "bsdtar --format=v7tar --no-read-sparse -cf $OUT image.ext4 b.txt",
            &["V7", "--format=ustar"],
        );
    }
}
