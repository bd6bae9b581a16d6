//! Artifacts for tests, made by the production writer.

use std::io::{self, Cursor, Read};
use std::str::FromStr;

use client_core::artifact::write::{self, ArtifactSpec, PayloadSource, SoftwareName};
use client_core::artifact::{Compression, CompressionLevel, InvalidName, Signer, StateScript};

/// The device type of every artifact here.
pub const DEVICE_TYPE: &str = "testbox";

/// A payload file in memory.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    /// Its name.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

impl PayloadSource for MemoryFile {
    fn name(&self) -> &str {
        &self.name
    }
    fn size(&self) -> u64 {
        self.content.len() as u64
    }
    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.content.as_slice()))
    }
}

/// Writes an artifact.
///
/// # Panics
/// When the writer refuses.
pub fn build(spec: &ArtifactSpec, files: &[MemoryFile], signer: Option<&Signer>) -> Vec<u8> {
    let files: Vec<&dyn PayloadSource> = files.iter().map(|file| file as &dyn PayloadSource).collect();
    let mut out = Vec::new();
    write::write(spec, &files, signer, &mut Cursor::new(Vec::new()), &mut out)
        .expect("the artifact is written");
    out
}

/// The name that `text` is.
///
/// # Panics
/// When it is none.
pub fn named<N: FromStr<Err = InvalidName>>(text: &str) -> N {
    text.parse().expect("a name that an artifact can have")
}

/// A root file system artifact as `rust-ota-artifact write rootfs-image` makes it.
pub fn rootfs_spec(name: &str, compression: Compression) -> ArtifactSpec {
    let software = SoftwareName::of_payload_type(write::ROOTFS_IMAGE);
    let mut spec = ArtifactSpec::rootfs_image(named(name), vec![named(DEVICE_TYPE)]);
    spec.provide_version(&software, name);
    spec.clear_software(&software);
    spec.compression = CompressionLevel::default_of(compression);
    spec
}

/// An unsigned, uncompressed root file system artifact.
pub fn rootfs(name: &str, image: &[u8]) -> Vec<u8> {
    let file = MemoryFile { name: "rootfs.img".into(), content: image.to_vec() };
    build(&rootfs_spec(name, Compression::None), &[file], None)
}

/// A state script that would succeed.
pub fn script(name: &str) -> StateScript {
    StateScript { name: name.to_owned(), content: b"#!/bin/sh\n".to_vec() }
}
