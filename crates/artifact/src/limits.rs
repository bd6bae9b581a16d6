//! The limits on what an artifact may make the reader do. Every length from outside meets one of these before it
//! meets an allocator.
//!
//! They bound the memory of the reader, whatever the artifact says, to less than 32 MiB beside what the decoder
//! of the chosen compression needs: its window ([`Limits::zstd_window_bytes`]) or dictionary
//! ([`Limits::xz_dictionary_bytes`]), as far as the content fills them.

/// Upper bounds for one artifact. `Default` is what devices use; the fields are public so that a tool or a test may
/// choose otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of `version`. Writers produce 31; white space and unknown keys are allowed for.
    pub version_bytes: usize,
    /// Bytes of `manifest`. Ten thousand lines of the usual length fit.
    pub manifest_bytes: usize,
    /// Lines of `manifest`: one per payload file, one for the header and one for `version`.
    pub manifest_lines: usize,
    /// Bytes of a name in any of the archives and of a payload file name in the manifest. File systems take 255.
    pub name_bytes: usize,
    /// Bytes of `manifest.sig`. An RSA signature of 8192 bits is 1,368 bytes of Base64; wrapped lines fit too.
    pub signature_bytes: usize,
    /// Bytes of the header as stored. It is buffered whole, because nothing of it may be decoded before its
    /// checksum is known to be right.
    pub header_bytes: usize,
    /// Bytes of the header when decompressed, tar headers and padding included. Bounds the time a compression
    /// bomb costs; the memory is bounded by the limits of the members.
    pub header_open_bytes: u64,
    /// Bytes of one state script. Scripts are kept in memory until the header is accepted.
    pub script_bytes: usize,
    /// Number of state scripts: six states, three actions and a few orders for each.
    pub scripts: usize,
    /// Bytes of all state scripts together, so that 64 of them cannot ask for 64 MiB.
    pub scripts_total_bytes: usize,
    /// Bytes of `header-info`, and of `type-info`. Long `provides` lists fit a hundred times.
    pub header_json_bytes: usize,
    /// Bytes of `meta-data`, which belongs to the update module and may be larger.
    pub meta_data_bytes: usize,
    /// Nesting of arrays and objects in any JSON document. The parser is recursive: this bounds its stack.
    pub json_depth: usize,
    /// Number of payload files. Each costs a file and an entry in a map.
    pub payload_files: usize,
    /// Bytes of one PAX header record block in front of a member.
    pub pax_bytes: usize,
    /// Zero bytes accepted after the end of an archive. `tar` pads to 10 KiB and larger blocking factors exist; an
    /// endless stream of zeros must still end.
    pub trailing_zero_bytes: u64,
    /// Largest window of a zstd frame: 32 MiB, which `mender-artifact` 3.10 to 4.0 writes at its best level, however
    /// small the content. RFC 8878 names 8 MiB as what every decoder should take, and that is what we write.
    pub zstd_window_bytes: u64,
    /// Largest dictionary of xz: 64 MiB, which `mender-artifact` and `xz -9` ask for, however small the content. The
    /// decoder needs up to 2 MiB more.
    pub xz_dictionary_bytes: u64,
    /// Whether threads read and decode ahead of whoever takes the payload in.
    pub reading: Reading,
    /// What a decoder may take of the memory that is free now, when that is known. A window that fits in
    /// [`Limits::zstd_window_bytes`] and not in here is refused before anything is written. Whoever knows the system
    /// says it: nothing here does.
    pub memory_bytes: Option<u64>,
}

/// Who reads the artifact and decodes its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Threads of their own, so that the slowest of network, decoder and disk sets the pace.
    Ahead,
    /// Whoever takes the payload in, one after the other, for a process that wants no other threads in it.
    InTurn,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            version_bytes: 1024,
            manifest_bytes: MIB,
            manifest_lines: 10_000,
            name_bytes: 255,
            signature_bytes: 16 * KIB,
            header_bytes: 8 * MIB,
            header_open_bytes: 32 << 20,
            script_bytes: MIB,
            scripts: 64,
            scripts_total_bytes: 8 * MIB,
            header_json_bytes: 256 * KIB,
            meta_data_bytes: MIB,
            json_depth: 32,
            payload_files: 10_000,
            pax_bytes: 16 * KIB,
            trailing_zero_bytes: 1 << 20,
            zstd_window_bytes: 32 << 20,
            xz_dictionary_bytes: 64 << 20,
            reading: Reading::Ahead,
            memory_bytes: None,
        }
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
