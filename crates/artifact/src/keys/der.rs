//! As much DER and PEM as key files need. Lengths are definite and minimal, and nothing may be left over.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// What keys are of, by their object identifiers.
pub(super) const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
pub(super) const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
pub(super) const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub(super) const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
pub(super) const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// Reads values front to back; every method is `None` for anything malformed or of another type.
#[derive(Clone, Copy)]
pub(super) struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Der<'a> {
        Der(bytes)
    }

    /// The content of the one value of type `tag` that `bytes` consist of.
    pub(super) fn only(bytes: &'a [u8], tag: u8) -> Option<&'a [u8]> {
        let mut der = Der(bytes);
        let content = der.take(tag)?;
        der.is_empty().then_some(content)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn next_is(&self, tag: u8) -> bool {
        self.0.first() == Some(&tag)
    }

    /// The content of the next value, which has to be of type `tag`.
    pub(super) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match *first {
            short @ 0..=0x7f => (usize::from(short), rest),
            long @ (0x81 | 0x82) => {
                let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                let length = bytes.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
                // A longer form than needed is another spelling of the same key.
                if length < 0x80 || (long == 0x82 && length < 0x100) {
                    return None;
                }
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (*found == tag).then_some(content)
    }

    pub(super) fn sequence(&mut self) -> Option<Der<'a>> {
        self.take(SEQUENCE).map(Der)
    }

    /// A bit string of whole bytes.
    pub(super) fn bit_string(&mut self) -> Option<&'a [u8]> {
        self.take(BIT_STRING)?.strip_prefix(&[0])
    }
}

/// An object identifier, and its parameter if that is one too.
pub(super) type Algorithm<'a> = (&'a [u8], Option<&'a [u8]>);

/// An `AlgorithmIdentifier`.
pub(super) fn algorithm_identifier<'a>(info: &mut Der<'a>) -> Option<Algorithm<'a>> {
    let mut identifier = info.sequence()?;
    let algorithm = identifier.take(OID)?;
    let parameters = if identifier.next_is(OID) {
        Some(identifier.take(OID)?)
    } else if identifier.next_is(NULL) {
        identifier.take(NULL)?.is_empty().then_some(())?;
        None
    } else {
        None
    };
    identifier.is_empty().then_some((algorithm, parameters))
}

/// One value.
pub(super) fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match content.len() {
        short @ 0..=0x7f => bytes.extend(u8::try_from(short)),
        // Nothing encoded here comes near 64 KiB.
        long => {
            let length = u16::try_from(long).unwrap_or(u16::MAX).to_be_bytes();
            match length {
                [0, low] => bytes.extend([0x81, low]),
                [high, low] => bytes.extend([0x82, high, low]),
            }
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

/// An unsigned number: no superfluous zero in front, and one where the top bit is set.
#[cfg(feature = "rsa-ecdsa")]
pub(super) fn encode_unsigned(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let mut content = number.get(zeros..).unwrap_or_default().to_vec();
    if content.first().is_none_or(|byte| *byte & 0x80 != 0) {
        content.insert(0, 0);
    }
    encode(INTEGER, &content)
}

/// One block of a PEM file.
pub(super) struct PemBlock {
    pub(super) label: String,
    pub(super) content: Vec<u8>,
}

/// The blocks of a PEM file. Text around them is ignored, as OpenSSL does; a block that is not closed or not Base64
/// makes the whole file malformed.
pub(super) fn pem_blocks(pem: &[u8]) -> Option<Vec<PemBlock>> {
    let text = std::str::from_utf8(pem).ok()?;
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut base64 = String::new();
        loop {
            match lines.next()? {
                line if line == end => break,
                // The headers of an encrypted key; the label and these are all that is looked at.
                line if line.contains(':') || line.is_empty() => {}
                line => base64.push_str(line),
            }
        }
        blocks.push(PemBlock { label: label.to_owned(), content: STANDARD.decode(base64).ok()? });
    }
    Some(blocks)
}

/// A PEM file of one block.
pub(super) fn pem_encode(label: &str, content: &[u8]) -> String {
    let base64 = STANDARD.encode(content);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_survives_the_round_trip() {
        for length in [0, 1, 127, 128, 255, 256, 65_535] {
            let content = vec![7; length];
            let encoded = encode(OCTET_STRING, &content);
            assert_eq!(Der::only(&encoded, OCTET_STRING), Some(&content[..]), "{length}");
            assert_eq!(Der::only(&encoded, SEQUENCE), None);
            assert_eq!(Der::only(&encoded[..encoded.len() - 1], OCTET_STRING), None);
            assert_eq!(Der::only(&[&encoded[..], &[0]].concat(), OCTET_STRING), None);
        }
    }

    #[test]
    fn longer_lengths_than_needed_and_open_lengths_are_refused() {
        for bytes in [
            &[4, 0x81, 1, 7][..],
            &[4, 0x82, 0, 0x80],
            &[4, 0x80, 7, 0, 0],
            &[4, 0x83, 0, 0, 1, 7],
            &[4],
            &[],
        ] {
            assert_eq!(Der::only(bytes, OCTET_STRING), None, "{bytes:?}");
        }
    }

    #[cfg(feature = "rsa-ecdsa")]
    #[test]
    fn unsigned_numbers_have_one_spelling() {
        assert_eq!(encode_unsigned(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(encode_unsigned(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(encode_unsigned(&[0, 0]), [2, 1, 0]);
    }

    #[test]
    fn pem_survives_the_round_trip_and_open_blocks_are_refused() {
        let pem = format!("text\n{}more\n", pem_encode("PUBLIC KEY", &[9; 100]));
        let blocks = pem_blocks(pem.as_bytes()).unwrap();
        assert_eq!((blocks[0].label.as_str(), &blocks[0].content[..]), ("PUBLIC KEY", &[9; 100][..]));
        assert!(pem_blocks(&pem.as_bytes()[..60]).is_none());
        assert!(pem_blocks(pem.replace("CQ", "C!").as_bytes()).is_none());
        assert!(pem_blocks(b"nothing").unwrap().is_empty());
    }
}
