//! Compilers for what ships: Debian's Rust with the sources of its library, musl for three processors, and GCC, which has to
//! be installed. The others are unpacked into the cache; nothing of them is installed.
//!
//! Nobody publishes the library of Rust for musl as a package of Debian, so it is built with the program, from its sources.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Cache};
use crate::mirror::Debian;
use crate::{Outcome, workspace};

/// What Debian has the compiler and its library in: the browser's, which is newer.
const COMPILER: &str = "rustc-web";
const LIBRARY: &str = "libstd-rust-web-dev";
const LIBRARY_SOURCES: &str = "rust-web-src";

/// The processor that Debian's compiler itself is taken for.
const HERE: Arch = Arch::X86_64;

/// What calls GCC for musl. Rust takes the end of a linker's name for its kind.
const COMPILE: &str = "compile-gcc";
const LINK: &str = "link-gcc";

/// Where a program begins, and what finds no frames.
const START: &str = include_str!("../musl/start.c");
const UNWIND: &str = include_str!("../musl/unwind.c");
/// In place of one of musl's that is slow.
const MEMCMP: &str = include_str!("../musl/memcmp.c");
/// In place of two of ring's that need a large table.
const P256: &str = include_str!("../musl/p256.c");

/// A processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit PC.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM.
    Armv7,
}

impl Arch {
    /// Every one.
    pub const ALL: [Arch; 3] = [Arch::X86_64, Arch::Aarch64, Arch::Armv7];

    /// What people call it, in names of files.
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
            Arch::Armv7 => "armv7",
        }
    }

    /// What Debian calls it.
    pub fn debian(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Aarch64 => "arm64",
            Arch::Armv7 => "armhf",
        }
    }

    /// What Rust calls it together with musl.
    pub fn triple(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64-unknown-linux-musl",
            Arch::Aarch64 => "aarch64-unknown-linux-musl",
            Arch::Armv7 => "armv7-unknown-linux-musleabihf",
        }
    }

    /// The one that Rust calls `triple`.
    pub fn of_triple(triple: &str) -> Option<Arch> {
        Arch::ALL.into_iter().find(|arch| arch.triple() == triple)
    }

    /// What the folders of Debian's musl are called.
    fn musl(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64-linux-musl",
            Arch::Aarch64 => "aarch64-linux-musl",
            Arch::Armv7 => "arm-linux-musleabihf",
        }
    }

    /// What the names of GCC and its tools begin with.
    fn tools(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64-linux-gnu-",
            Arch::Aarch64 => "aarch64-linux-gnu-",
            Arch::Armv7 => "arm-linux-gnueabihf-",
        }
    }

    /// The package that has them.
    pub fn package(self) -> &'static str {
        match self {
            Arch::X86_64 => "gcc",
            Arch::Aarch64 => "gcc-aarch64-linux-gnu",
            Arch::Armv7 => "gcc-arm-linux-gnueabihf",
        }
    }
}

/// What builds programs with musl for a processor.
#[derive(Debug, Clone)]
pub struct Compilers {
    arch: Arch,
    /// Debian's compiler, with the sources of its library.
    rust: PathBuf,
    /// musl, and what calls GCC for it.
    musl: PathBuf,
    /// Names and versions, a line each.
    versions: String,
}

impl Compilers {
    /// Fetches what is not there yet: about 250 MB for the first processor, 1 MB for each other.
    ///
    /// # Errors
    /// When this is no Debian of x86-64, its mirrors do not have the packages, or GCC for the processor is not installed.
    pub fn fetch(cache: &Cache, arch: Arch) -> Outcome<Compilers> {
        if !cfg!(target_arch = "x86_64") {
            return Err("Debian's compiler is taken for x86-64 only".into());
        }
        let gcc = format!("{}gcc", arch.tools());
        let said = Command::new(&gcc).args(["-dumpfullversion"]).output();
        let said = said.map_err(|_| format!("{gcc} is not installed: package {}", arch.package()))?;
        let gcc_version = format!("{gcc} {}", String::from_utf8_lossy(&said.stdout).trim());

        let debian = Debian::open(cache.place())?;
        let (rust, mut versions) = rust(cache, &debian)?;
        let package = debian.candidate("musl-dev", arch.debian())?;
        let recipe = format!(
            "musl 2\n{package}\n{gcc_version}\n{}{}{START}{UNWIND}{MEMCMP}{P256}",
            script(arch, COMPILE),
            script(arch, LINK)
        );
        let musl = cache.recipe(&format!("musl-{}", arch.debian()), &recipe, |directory| {
            debian.unpack(&["musl-dev"], arch.debian(), directory)?;
            complete(arch, directory)
        })?;
        versions.extend([package, gcc_version]);
        let compilers = Compilers { arch, rust, musl, versions: versions.join("\n") };
        compilers.note(cache)?;
        Ok(compilers)
    }

    /// What an earlier call has fetched, without asking the network.
    pub fn if_there(cache: &Cache, arch: Arch) -> Option<Compilers> {
        let note = fs::read_to_string(cache.place().join(note_of(arch))).ok()?;
        let (rust, rest) = note.split_once('\n')?;
        let (musl, versions) = rest.split_once('\n')?;
        let (rust, musl) = (PathBuf::from(rust), PathBuf::from(musl));
        let there = rust.join("rustc").is_file() && musl.join(LINK).is_file();
        there.then(|| Compilers { arch, rust, musl, versions: versions.trim_end().to_owned() })
    }

    fn note(&self, cache: &Cache) -> Outcome {
        let note = format!("{}\n{}\n{}\n", self.rust.display(), self.musl.display(), self.versions);
        let path = cache.place().join(note_of(self.arch));
        let unfinished = path.with_extension(std::process::id().to_string());
        workspace::write(&unfinished, note)?;
        fs::rename(&unfinished, &path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// For which processor.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Names and versions of all that is in them, a line each: what a release is rebuilt with.
    pub fn versions(&self) -> &str {
        &self.versions
    }

    /// The sources of Rust's library, under both names that the compiler may give them.
    pub fn library_sources(&self) -> Vec<PathBuf> {
        let link = self.rust.join("usr/lib/rustlib/src/rust");
        let real = fs::canonicalize(&link).ok();
        std::iter::once(link).chain(real).map(|folder| folder.join("library")).collect()
    }

    /// Tells cargo to build with them. What it was started with is not for the other compiler.
    pub fn apply(&self, cargo: &mut Command) {
        for name in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS"] {
            cargo.env_remove(name);
        }
        let name = self.arch.triple().replace('-', "_");
        cargo.args(["--target", self.arch.triple(), "-Zbuild-std=std,panic_abort"]);
        // `build-std` is not stable: Debian's compiler is told to allow it, and cargo too.
        cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", self.rust.join("rustc"));
        cargo.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), self.musl.join(LINK));
        cargo.env(format!("CC_{name}"), self.musl.join(COMPILE));
        cargo.env(format!("AR_{name}"), format!("{}ar", self.arch.tools()));
        // 32-bit times end in 2038. The bindings of the C library have those of musl 1.2 behind this switch.
        cargo.env("RUST_LIBC_UNSTABLE_MUSL_V1_2_3", "1");
    }

    /// What the compiler is told besides.
    pub fn rust_flags(&self) -> Vec<String> {
        let unwind = format!("native={}", self.musl.join("unwind").display());
        let features = match self.arch {
            Arch::X86_64 | Arch::Aarch64 => "target-feature=+crt-static",
            // Instructions of 16 and 32 bits, as GCC for this processor makes them, in place of only those of 32.
            Arch::Armv7 => "target-feature=+crt-static,+thumb-mode",
        };
        ["-C", features, "-C", "link-self-contained=no", "-L", &unwind].map(str::to_owned).to_vec()
    }

    /// What the linker is told so that ring multiplies the generator of P-256 as it does any other point, which does away with
    /// a table of 148 KiB. `prefix` is what the names of ring's C code begin with.
    pub fn small_p256(&self, prefix: &str) -> Vec<String> {
        match self.arch {
            // Its table for this processor is 2 KiB.
            Arch::Armv7 => Vec::new(),
            Arch::X86_64 | Arch::Aarch64 => {
                let ours = "rota_p256_point_mul_base";
                let mut flags = vec![
                    format!("link-arg={}", self.musl.join("p256.o").display()),
                    format!("link-arg=-Wl,--defsym=rota_p256_point_mul={prefix}p256_point_mul"),
                ];
                for name in ["p256_point_mul_base", "p256_point_mul_base_vartime"] {
                    let theirs = format!("{prefix}{name}");
                    flags.push(format!("link-arg=-Wl,--wrap={theirs},--defsym=__wrap_{theirs}={ours}"));
                }
                flags.into_iter().flat_map(|flag| ["-C".to_owned(), flag]).collect()
            }
        }
    }
}

/// Where it is noted what was fetched. What this project adds to it is part of the name: other sources ask for other folders.
fn note_of(arch: Arch) -> String {
    let own = [&script(arch, COMPILE), &script(arch, LINK), START, UNWIND, MEMCMP, P256].concat();
    format!("compilers-{}-{}", arch.debian(), cache::hash(&own))
}

/// Debian's compiler with its library and the sources of it, all of one version.
fn rust(cache: &Cache, debian: &Debian) -> Outcome<(PathBuf, Vec<String>)> {
    let version = debian.version(LIBRARY_SOURCES, HERE.debian())?;
    let there = format!("{LIBRARY}={version}");
    let library = debian.depends(&there, HERE.debian(), "libstd-rust-web-")?;
    let library = format!("{library}={version}");
    let llvm = debian.depends(&library, HERE.debian(), "libllvm")?;
    let (compiler, sources) = (format!("{COMPILER}={version}"), format!("{LIBRARY_SOURCES}={version}"));
    let packages = [compiler.as_str(), &library, &llvm, &there, &sources];
    let mut versions = Vec::new();
    for package in packages {
        versions.push(debian.candidate(package, HERE.debian())?);
    }
    let recipe = format!("rust with sources 1\n{}\n", versions.join("\n"));
    let folder = cache.recipe("rust", &recipe, |directory| {
        debian.unpack(&packages, HERE.debian(), directory)?;
        keep_library(directory)?;
        let text = "#!/bin/sh\nhere=$(dirname \"$0\")\n\
                    LD_LIBRARY_PATH=$here/usr/lib/x86_64-linux-gnu exec \"$here/usr/bin/rustc\" \"$@\"\n";
        write_program(&directory.join("rustc"), text)
    })?;
    Ok((folder, versions))
}

/// Of the sources only the library is wanted: the compiler's own are 350 MB.
fn keep_library(directory: &Path) -> Outcome {
    let sources = fs::canonicalize(directory.join("usr/lib/rustlib/src/rust"))
        .map_err(|error| format!("{LIBRARY_SOURCES} has no sources where they are expected: {error}"))?;
    let failed = |error: std::io::Error| format!("{}: {error}", sources.display());
    for entry in fs::read_dir(&sources).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name() != "library" && entry.file_type().map_err(failed)?.is_dir() {
            fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Puts beside musl what calls GCC for it, the start and the unwinder.
fn complete(arch: Arch, directory: &Path) -> Outcome {
    for name in [COMPILE, LINK] {
        write_program(&directory.join(name), &script(arch, name))?;
    }
    let unwind = directory.join("unwind");
    fs::create_dir_all(&unwind).map_err(|error| format!("{}: {error}", unwind.display()))?;
    let sources: &[(&str, &str)] = match arch {
        Arch::X86_64 => &[("unwind", UNWIND), ("memcmp", MEMCMP), ("p256", P256), ("start", START)],
        Arch::Aarch64 => &[("unwind", UNWIND), ("memcmp", MEMCMP), ("p256", P256)],
        Arch::Armv7 => &[("unwind", UNWIND), ("memcmp", MEMCMP)],
    };
    for (name, text) in sources {
        let source = directory.join(format!("{name}.c"));
        workspace::write(&source, text)?;
        let mut compile = Command::new(directory.join(COMPILE));
        compile.args([
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O2",
            "-fPIC",
            "-ffreestanding",
            "-fno-stack-protector",
        ]);
        compile.args(["-c", "-o"]).arg(directory.join(format!("{name}.o"))).arg(source);
        workspace::run_quietly(&mut compile)?;
    }
    let mut archive = Command::new(format!("{}ar", arch.tools()));
    // Rust links the unwinder before the C library: what is beside it there is taken before that one's.
    archive.arg("rcsD").arg(unwind.join("libunwind.a"));
    archive.args(["unwind.o", "memcmp.o"].map(|object| directory.join(object)));
    workspace::run_quietly(&mut archive)
}

/// What is in [`COMPILE`] or [`LINK`].
fn script(arch: Arch, name: &str) -> String {
    let (gcc, musl) = (format!("{}gcc", arch.tools()), arch.musl());
    let head = "#!/bin/sh\nhere=$(dirname \"$0\")\n";
    let compile = format!(
        "{gcc} -nostdinc -isystem \"$here/usr/include/{musl}\" -isystem \"$({gcc} -print-file-name=include)\""
    );
    if name == COMPILE {
        return format!("{head}exec {compile} \"$@\"\n");
    }
    let start = match arch {
        // At an address that nobody knows before (static-pie). The linker of Debian 12 has the short form of relocations for
        // this processor only.
        Arch::X86_64 => {
            format!(
                "\"$here/usr/lib/{musl}/rcrt1.o\" \"$here/start.o\" -Wl,-e,rota_start,-z,pack-relative-relocs"
            )
        }
        Arch::Aarch64 => format!("\"$here/usr/lib/{musl}/rcrt1.o\""),
        // Rust links programs for this one at a fixed address, and so does GCC.
        Arch::Armv7 => format!("\"$here/usr/lib/{musl}/crt1.o\""),
    };
    format!("{head}exec {gcc} -nostartfiles -L\"$here/usr/lib/{musl}\" {start} \"$@\"\n")
}

/// Complete or not there.
fn write_program(path: &Path, text: &str) -> Outcome {
    let unfinished = path.with_extension("unfinished");
    workspace::write(&unfinished, text)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755))
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_leads_to_its_processor_and_others_to_none() {
        for arch in Arch::ALL {
            assert_eq!(Arch::of_triple(arch.triple()), Some(arch));
        }
        assert_eq!(Arch::of_triple("x86_64-unknown-linux-gnu"), None);
    }

    #[test]
    fn what_was_fetched_is_found_again_while_it_is_there() {
        let place = std::env::temp_dir().join(format!("xtask-compilers-{}", std::process::id()));
        let cache = Cache::at(place.clone()).unwrap();
        let (rust, musl) = (place.join("rust"), place.join("musl"));
        for (folder, program) in [(&rust, "rustc"), (&musl, LINK)] {
            fs::create_dir_all(folder).unwrap();
            workspace::write(&folder.join(program), "").unwrap();
        }
        assert!(Compilers::if_there(&cache, Arch::Armv7).is_none());
        let versions = "rustc-web 1 amd64\nmusl-dev 2 armhf".to_owned();
        Compilers { arch: Arch::Armv7, rust, musl: musl.clone(), versions }.note(&cache).unwrap();
        let found = Compilers::if_there(&cache, Arch::Armv7).unwrap();
        assert_eq!(found.versions().lines().count(), 2);
        assert_eq!(found.musl, musl);
        assert!(Compilers::if_there(&cache, Arch::X86_64).is_none(), "another processor");
        fs::remove_file(musl.join(LINK)).unwrap();
        assert!(Compilers::if_there(&cache, Arch::Armv7).is_none(), "a linker that is gone");
        fs::remove_dir_all(place).unwrap();
    }

    /// The words of the constant `name` in [`P256`], the lowest first.
    fn words(name: &str) -> Vec<u64> {
        let (_, rest) = P256.split_once(&format!("limb {name}[4] = {{")).unwrap();
        let words = rest.split_once('}').unwrap().0.split(", ");
        words.map(|word| u64::from_str_radix(word.strip_prefix("0x").unwrap(), 16).unwrap()).collect()
    }

    /// `number` as words, the lowest first.
    fn of_hex(number: &str) -> Vec<u64> {
        let digits = number.as_bytes().rchunks(16);
        digits.map(|digits| u64::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()).collect()
    }

    /// Twice `number`, less `prime` if that is not below it.
    fn twice(number: &[u64], prime: &[u64]) -> Vec<u64> {
        let top = number.last().unwrap() >> 63;
        let below = |at: usize| at.checked_sub(1).map_or(0, |below| number[below] >> 63);
        let doubled: Vec<u64> = (0..number.len()).map(|at| number[at] << 1 | below(at)).collect();
        if top == 0 && doubled.iter().rev().lt(prime.iter().rev()) {
            return doubled;
        }
        let mut borrow = false;
        let less = doubled.iter().zip(prime).map(|(word, prime)| {
            let (less, first) = word.overflowing_sub(*prime);
            let (less, second) = less.overflowing_sub(u64::from(borrow));
            borrow = first || second;
            less
        });
        less.collect()
    }

    /// The numbers of FIPS 186-4, D.1.2.3, brought into the form that ring calculates with.
    #[test]
    fn the_generator_of_p256_is_that_of_the_standard() {
        let prime = of_hex("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
        for (name, standard) in [
            ("X", "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
            ("Y", "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
        ] {
            let expected = (0..256).fold(of_hex(standard), |number, _| twice(&number, &prime));
            assert_eq!(words(name), expected, "{name}");
        }
    }
}
