//! The C interface as C programs use it: the examples of the guide, and programs that do what they must not.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use client_core::artifact::Signer;
use client_core::slot::Slot;
use interop::backend::{Backend, PATIENCE};
use interop::programs::c_library;
use interop::tool;
use interop::virtual_device::{Bootloader, VirtualDevice};
use testkit::artifacts::DEVICE_TYPE;

/// Bytes of the image: some hundred calls of a read callback.
const IMAGE_BYTES: usize = 300_000;
/// As strict as a compiler is asked to be.
const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-g"];

fn ffi() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/ffi")
}

/// A C program of the guide or of the tests, built as `flags` say, beside its device.
fn compile(folder: &Path, source: &str, flags: &[&str]) -> Option<PathBuf> {
    let compiler = tool("cc")?;
    let (library, out) = (folder.join("lib"), folder.join(Path::new(source).file_stem().unwrap()));
    // As an installation has it: by the name in the library for programs, by the plain one for the linker.
    fs::create_dir_all(&library).unwrap();
    for name in ["librust_ota.so.0", "librust_ota.so"] {
        // Another program of this device may have made it.
        let _ = std::os::unix::fs::symlink(c_library().join("librust_ota.so"), library.join(name));
    }
    let mut command = Command::new(compiler);
    command.args(STRICT).args(flags).arg("-I").arg(ffi().join("include")).arg(ffi().join(source));
    command.arg("-L").arg(&library).args(["-lrust_ota", "-lpthread"]);
    command.arg(format!("-Wl,-rpath,{}", library.display())).arg("-o").arg(&out);
    succeeds(&mut command);
    Some(out)
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = run(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// A device with an artifact for it.
fn device(bootloader: Bootloader) -> (VirtualDevice, PathBuf, Vec<u8>) {
    let device = VirtualDevice::with(bootloader);
    device.configure("http://127.0.0.1:9", |_| {});
    let image: Vec<u8> = (0..IMAGE_BYTES).map(|at| (at % 251) as u8).collect();
    let artifact = device.artifact("release-2", &image);
    (device, artifact, image)
}

#[test]
fn the_header_is_plain_c_and_cpp() {
    let folder = tempfile::tempdir().unwrap();
    for (compiler, name, standards) in
        [("cc", "header.c", &["c89", "c99", "c17"][..]), ("c++", "header.cpp", &["c++11", "c++20"][..])]
    {
        let Some(compiler) = tool(compiler) else { return };
        let source = folder.path().join(name);
        fs::write(&source, "#include <rust_ota.h>\nint main(void) { return rota_free(0); }\n").unwrap();
        for standard in standards {
            let mut command = Command::new(&compiler);
            command.args(STRICT).arg(format!("-std={standard}")).arg("-c").arg("-I");
            succeeds(command.arg(ffi().join("include")).arg(&source).arg("-o").arg(folder.path().join("o")));
        }
    }
}

#[test]
fn an_installer_of_forty_lines_updates_a_device_with_either_bootloader() {
    for bootloader in [Bootloader::UBoot, Bootloader::Grub] {
        let (mut device, artifact, image) = device(bootloader);
        let Some(program) = compile(&device.path(""), "examples/install.c", &["-std=c89"]) else { return };
        let mut install = Command::new(&program);
        install.arg(device.path("conf/mender.conf")).arg(device.path("data"));
        let said = succeeds(install.arg(&artifact));
        assert!(said.ends_with("installed: restart the device\n"), "{said}");
        device.boot();
        assert_eq!((device.running, device.running_image(image.len())), (Slot::B, image));
        let mut commit = Command::new(&program);
        commit.arg(device.path("conf/mender.conf")).arg(device.path("data"));
        assert_eq!(succeeds(&mut commit), "committed\n");
        device.boot();
        assert_eq!(device.running, Slot::B, "it stays");
    }
}

/// The firmware of the guide on `device`.
fn firmware(program: &Path, device: &VirtualDevice, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg(device.path("")).args(arguments);
    command
}

#[test]
fn firmware_feeds_asks_restarts_and_commits_or_goes_back() {
    for bootloader in [Bootloader::UBoot, Bootloader::Grub] {
        let (mut device, artifact, image) = device(bootloader);
        let Some(program) = compile(&device.path(""), "examples/firmware.c", &["-std=c99"]) else { return };
        let status = |device: &VirtualDevice| succeeds(&mut firmware(&program, device, &["status"]));
        let update = |device: &VirtualDevice| {
            let mut command = firmware(&program, device, &["update"]);
            command.stdin(File::open(&artifact).unwrap()).output().unwrap()
        };
        // Its user is busy: nothing is changed.
        fs::write(device.path("busy"), "").unwrap();
        assert_eq!(update(&device).status.code(), Some(1));
        assert!(status(&device).starts_with("standing 0, slot A runs, slot A is next, release-1"));
        fs::remove_file(device.path("busy")).unwrap();
        // Not well after the restart: it goes back.
        let updated = update(&device);
        let said = String::from_utf8_lossy(&updated.stdout).into_owned();
        assert!(updated.status.success() && said.contains("before step 2 of release-2"), "{updated:?}");
        assert!(said.contains("writing 100 %") && said.contains("reading back 100 %"), "{said}");
        assert!(status(&device).starts_with("standing 2, slot A runs, slot B is next, release-1"));
        device.boot();
        assert!(
            status(&device).starts_with("standing 3, slot B runs, slot B is next"),
            "{}",
            status(&device)
        );
        let said = succeeds(&mut firmware(&program, &device, &["started", "0"]));
        assert_eq!(said, "outcome 4, restart now\n");
        device.boot();
        assert!(status(&device).contains("slot A runs, slot A is next, release-1"), "{}", status(&device));
        succeeds(&mut firmware(&program, &device, &["started", "1"]));
        // Well: it stays.
        assert!(update(&device).status.success());
        device.boot();
        let said = succeeds(&mut firmware(&program, &device, &["started", "1"]));
        assert_eq!(said.lines().last(), Some("outcome 3"), "{said}");
        assert_eq!(status(&device), "standing 0, slot B runs, slot B is next, release-2 is installed\n");
        assert_eq!(device.running_image(image.len()), image);
    }
}

#[test]
fn the_bootloader_that_went_back_is_seen_and_wound_up() {
    let (mut device, artifact, _) = device(Bootloader::UBoot);
    let Some(program) = compile(&device.path(""), "examples/firmware.c", &[]) else { return };
    let mut update = firmware(&program, &device, &["update"]);
    assert!(update.stdin(File::open(artifact).unwrap()).output().unwrap().status.success());
    // The new software does not commit: the bootloader counts, and the next start is the old one's.
    device.boot();
    device.boot();
    assert_eq!(device.running, Slot::A);
    let status = || succeeds(&mut firmware(&program, &device, &["status"]));
    assert!(status().starts_with("standing 5, slot A runs, slot A is next, release-1"), "{}", status());
    let resumed = run(&mut firmware(&program, &device, &["started", "1"]));
    assert_eq!(resumed.status.code(), Some(1), "{resumed:?}");
    assert!(status().starts_with("standing 0, slot A runs"), "{}", status());
}

#[test]
fn a_program_that_polls_by_itself_is_a_device_of_the_server() {
    let backend = Backend::start(|options| options);
    let (mut device, artifact, image) = device(Bootloader::UBoot);
    let Some(program) = compile(&device.path(""), "examples/firmware.c", &[]) else { return };
    let url = backend.running.url().to_owned();
    let poll = |device: &VirtualDevice| run(&mut firmware(&program, device, &["poll", &url]));
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(poll(&device).status.code(), Some(1), "nobody has accepted it yet");
    backend.accept_the_device();
    let idle = poll(&device);
    assert!(
        idle.status.success() && text(&idle).contains("ended 0, waits before 0, restarting 0"),
        "{idle:?}"
    );
    assert_eq!(backend.attribute(&backend.the_device(), "hostname").as_deref(), Some("box1"));
    let deployment = backend.deploy(&artifact, "release-2");
    let installed = poll(&device);
    assert!(text(&installed).ends_with("ended 0, waits before 0, restarting 1\n"), "{installed:?}");
    assert!(text(&installed).contains("before step 3 of release-2"), "{installed:?}");
    assert!(device.waits_for_restart());
    device.boot();
    let committed = poll(&device);
    assert!(text(&committed).contains("ended 1, waits before 0, restarting 0"), "{committed:?}");
    assert_eq!(backend.status(&deployment).as_deref(), Some("success"));
    assert_eq!(device.running_image(image.len()), image);
}

/// A device that a server has accepted, and the program of rounds for it.
fn accepted() -> Option<(Backend, VirtualDevice, PathBuf, PathBuf)> {
    let backend = Backend::start(|options| options);
    let (device, artifact, _) = device(Bootloader::UBoot);
    device.configure(backend.running.url(), |_| {});
    let program = compile(&device.path(""), "examples/firmware.c", &[])?;
    run(&mut firmware(&program, &device, &["poll", backend.running.url()]));
    backend.accept_the_device();
    let program = compile(&device.path(""), "tests/c/rounds.c", &["-std=c99"])?;
    Some((backend, device, artifact, program))
}

#[test]
fn a_deployment_that_waits_before_a_gate_is_gone_on_with_in_each_round() {
    let Some((backend, device, artifact, program)) = accepted() else { return };
    // The usual interval is long: what waits has its own.
    device.configure(backend.running.url(), |config| {
        config["UpdatePollIntervalSeconds"] = 1800.into();
        config["InventoryPollIntervalSeconds"] = 1800.into();
    });
    backend.deploy(&artifact, "release-2");
    succeeds(&mut firmware(&program, &device, &["hold"]));
    assert!(device.waits_for_restart());
}

#[test]
fn a_deployment_given_up_in_the_loop_is_not_the_end_of_those_behind_it() {
    let Some((backend, device, artifact, program)) = accepted() else { return };
    let given_up = backend.deploy(&artifact, "release-2");
    let mut running = firmware(&program, &device, &["give-up"]).stdin(Stdio::null()).spawn().unwrap();
    assert_eq!(backend.outcome(&given_up, PATIENCE).as_deref(), Some("failure"));
    let next = device.artifact("release-3", &[3; IMAGE_BYTES]);
    let next = backend.deploy(&next, "release-3");
    let ended = interop::wait_for(PATIENCE, || match running.try_wait().unwrap() {
        Some(status) => Some(status.success()),
        None => backend.outcome(&next, std::time::Duration::ZERO).map(|_| false),
    });
    if ended.is_none() || running.try_wait().unwrap().is_none() {
        running.kill().unwrap();
        running.wait().unwrap();
    }
    assert_eq!(ended, Some(true), "{:?}", backend.status(&next));
}

#[test]
fn a_read_callback_that_fails_at_any_call_arms_nothing() {
    let (device, artifact, _) = device(Bootloader::UBoot);
    let Some(program) = compile(&device.path(""), "tests/c/every_read_fails.c", &["-std=c99"]) else {
        return;
    };
    let said = succeeds(Command::new(program).arg(device.path("")).arg(artifact));
    let calls: u32 = said.trim().trim_end_matches(" calls").parse().unwrap();
    println!("{calls} calls, each failed in four ways");
    assert!(calls > 15, "{said}");
}

#[test]
fn a_module_that_hangs_up_does_not_end_the_program_and_has_its_own_signals() {
    let (device, _, image) = device(Bootloader::UBoot);
    let Some(program) = compile(&device.path(""), "examples/firmware.c", &[]) else { return };
    fs::create_dir_all(device.path("share/modules/v3")).unwrap();
    let blocked = device.path("blocked");
    let script = format!(
        "case $1 in Download) grep SigBlk /proc/self/status >'{}'; exec 3<\"$(cat stream-next)\"; exec 3<&-; exit 1;; esac",
        blocked.display()
    );
    device.program("share/modules/v3/hangs-up", &script);
    let (payload, artifact) = (device.path("payload"), device.path("module.mender"));
    fs::write(&payload, image.repeat(8)).unwrap();
    let arguments = ["write", "module-image", "-T", "hangs-up", "-n", "app-2", "-t", DEVICE_TYPE, "-f"];
    let mut arguments: Vec<std::ffi::OsString> = arguments.map(Into::into).to_vec();
    fs::write(device.path("key"), Signer::generate_ed25519(&[7; 32]).private.as_bytes()).unwrap();
    let rest = [payload.into(), "-k".into(), device.path("key").into(), "-o".into(), artifact.clone().into()];
    arguments.extend(rest);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let made = rust_ota_artifact::run(arguments, &mut out, &mut err);
    assert!(made, "{}", String::from_utf8_lossy(&err));
    let mut update = firmware(&program, &device, &["update"]);
    let failed = update.stdin(File::open(artifact).unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1), "{}: {said}", failed.status);
    let blocked = fs::read_to_string(blocked).unwrap();
    let mask = u64::from_str_radix(blocked.trim_start_matches("SigBlk:").trim(), 16).unwrap();
    assert_eq!(mask, 0, "the module is started with signals blocked");
}

#[test]
fn every_misuse_has_a_code_and_changes_nothing() {
    let (device, artifact, _) = device(Bootloader::UBoot);
    let Some(program) = compile(&device.path(""), "tests/c/misuse.c", &["-std=c99"]) else { return };
    let said = succeeds(Command::new(program).arg(device.path("")).arg(artifact));
    assert_eq!(said, "every misuse was refused\n");
}

/// Everything of the update under a tool that looks at memory, with what it is started by and built with.
fn update_under(tool_command: &[&str], flags: &[&str]) {
    let (mut device, artifact, _) = device(Bootloader::UBoot);
    let Some(program) = compile(&device.path(""), "examples/firmware.c", flags) else { return };
    let under = |device: &VirtualDevice, arguments: &[&str]| {
        let firmware = firmware(&program, device, arguments);
        let mut command = match tool_command {
            [] => firmware,
            [tool, options @ ..] => {
                let mut command = Command::new(tool);
                command.args(options).arg(firmware.get_program()).args(firmware.get_args());
                command
            }
        };
        command.stdin(File::open(&artifact).unwrap());
        command
    };
    let succeeds = |mut command: Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    succeeds(under(&device, &["status"]));
    succeeds(under(&device, &["update"]));
    device.boot();
    succeeds(under(&device, &["started", "1"]));
    // Nobody answers there: the way to a server and back.
    let failed = under(&device, &["poll", "http://127.0.0.1:9"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1), "{}", String::from_utf8_lossy(&failed.stderr));
}

#[test]
fn an_update_from_c_leaks_nothing_under_valgrind() {
    let Some(valgrind) = tool("valgrind") else { return };
    // The runtime keeps one block of 48 bytes for the thread it is first called in, with a pointer into its middle, which counts
    // as possibly lost.
    let options = ["--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect"];
    let mut command = vec![valgrind.to_str().unwrap()];
    command.extend(options);
    command.push("--error-exitcode=99");
    update_under(&command, &[]);
}

#[test]
fn an_update_from_c_is_clean_under_sanitizers() {
    update_under(&[], &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
}

/// Set to write the description of the ABI where something was added to it.
const WRITE_ABI: &str = "ROTA_WRITE_ABI";

#[test]
fn nothing_is_removed_from_the_abi_or_changed_in_it() {
    let tools = ["cc", "nm", "abidw", "abidiff"].map(tool);
    let [Some(compiler), Some(nm), Some(abidw), Some(abidiff)] = tools else { return };
    let folder = tempfile::tempdir().unwrap();
    let (twin, source) = (folder.path().join("librust_ota.so.0"), folder.path().join("twin.c"));
    // What the header says, as a library with the types in it: the real one is built without.
    let header = fs::read_to_string(ffi().join("include/rust_ota.h")).unwrap();
    let prototypes = prototypes(&header);
    assert!(prototypes.len() > 20 && prototypes.len() < 25, "{}", prototypes.len());
    let functions: String = prototypes.iter().map(|(text, _)| format!("{text} {{ return 0; }}\n")).collect();
    fs::write(&source, format!("#include <rust_ota.h>\n{functions}")).unwrap();
    let mut command = Command::new(compiler);
    command.args(["-g", "-shared", "-fPIC", "-Wl,-soname,librust_ota.so.0", "-I"]);
    succeeds(command.arg(ffi().join("include")).arg(&source).arg("-o").arg(&twin));
    // The real one has these functions and no other symbol.
    let mut command = Command::new(nm);
    let library = c_library().join("librust_ota.so");
    let symbols = succeeds(command.args(["--dynamic", "--defined-only", "--format=posix"]).arg(library));
    let mut exported: Vec<&str> = symbols.lines().filter_map(|line| line.split(' ').next()).collect();
    exported.sort_unstable();
    let mut declared: Vec<&str> = prototypes.iter().map(|(_, name)| name.as_str()).collect();
    declared.sort_unstable();
    assert_eq!(exported, declared);

    let kept = ffi().join("abi/rust_ota.abi");
    let compared = run(Command::new(abidiff).arg(&kept).arg(&twin));
    let said = String::from_utf8_lossy(&compared.stdout);
    // One line each for functions and for variables: "Functions changes summary: 0 Removed, 1 Changed, 2 Added function".
    let counts = |word: &str| -> u32 {
        let words: Vec<&str> = said
            .lines()
            .filter(|line| line.contains(" changes summary: "))
            .flat_map(str::split_whitespace)
            .collect();
        words
            .windows(2)
            .filter(|pair| pair[1].trim_end_matches(',') == word)
            .filter_map(|pair| pair[0].parse::<u32>().ok())
            .sum()
    };
    let broken = counts("Removed") + counts("Changed");
    assert_eq!(broken, 0, "the ABI is not what programs were built with:\n{said}");
    if std::env::var_os(WRITE_ABI).is_some() {
        let mut command = Command::new(abidw);
        command.args(["--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--out-file"]);
        succeeds(command.arg(&kept).arg(&twin));
    } else {
        assert_eq!(counts("Added"), 0, "{WRITE_ABI}=1 writes down what was added:\n{said}");
        assert!(compared.status.success(), "{compared:?}");
    }
}

/// The functions of the header: each as it is declared, without its semicolon, and its name.
fn prototypes(header: &str) -> Vec<(String, String)> {
    let mut code = String::new();
    let mut rest = header;
    while let Some((before, comment)) = rest.split_once("/*") {
        code += before;
        rest = comment.split_once("*/").unwrap().1;
    }
    let code: Vec<&str> = code.lines().filter(|line| !line.starts_with('#')).collect();
    let code = code.join("\n");
    let declared = code.split(';').map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let functions = declared.filter(|text| !text.contains("typedef") && text.ends_with(')'));
    functions
        .map(|text| {
            let text = text.trim_start_matches("extern \"C\" { ").to_owned();
            let name = text.split('(').next().unwrap().rsplit([' ', '*']).next().unwrap().to_owned();
            (text, name)
        })
        .collect()
}

#[test]
fn looking_writes_nothing() {
    let (device, _, _) = device(Bootloader::Grub);
    let Some(program) = compile(&device.path(""), "examples/firmware.c", &[]) else { return };
    let before = everything(&device.path(""));
    assert!(succeeds(&mut firmware(&program, &device, &["status"])).starts_with("standing 0"));
    assert_eq!(everything(&device.path("")), before);
    // And opens nothing for it.
    let Some(strace) = tool("strace") else { return };
    let trace = device.path("trace");
    let mut command = Command::new(strace);
    command
        .args(["-f", "-e", "trace=open,openat,creat,fsync,fdatasync,flock", "-o"])
        .arg(&trace)
        .arg(&program);
    succeeds(command.arg(device.path("")).arg("status"));
    let trace = fs::read_to_string(trace).unwrap();
    assert!(trace.contains("mender_grubenv1/env"), "{trace}");
    let harmful = ["O_WRONLY", "O_RDWR", "O_CREAT", "flock"];
    let calls: Vec<&str> = trace.lines().filter(|line| harmful.iter().any(|it| line.contains(it))).collect();
    assert!(calls.is_empty(), "{calls:#?}");
}

/// Every file below `folder` with its content and the time of its last change.
fn everything(folder: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(everything(&path));
        }
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.push((path, content, metadata.modified().unwrap()));
    }
    found.sort();
    found
}
