//! Gives the shared library its name, as `cargo cinstall` does, so that a plain `cargo build` makes one to link with.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,librust_ota.so.0");
}
