//! Private keys that are encrypted with a passphrase: PKCS#8 `ENCRYPTED PRIVATE KEY` as OpenSSL writes it, that is PBES2
//! with PBKDF2 (HMAC with SHA-1, SHA-256 or SHA-512) and AES in CBC mode (RFC 8018).

use std::num::NonZeroU32;

use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockDecrypt, BlockSizeUser, KeyInit};
use ring::pbkdf2;

use super::der::{self, Der};
use super::error::KeyError;

const OID_PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const OID_PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
const OID_SCRYPT: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x04, 0x0b];
const OID_HMAC_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x07];
const OID_HMAC_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x09];
const OID_HMAC_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x0b];
const OID_AES_128_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x02];
const OID_AES_192_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x16];
const OID_AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];

/// Most iterations that are done: some seconds on a small device. OpenSSL does 2,048.
const ITERATIONS: u32 = 10_000_000;
const BLOCK: usize = 16;

/// What the key file says about its encryption.
struct Encrypted<'a> {
    salt: &'a [u8],
    iterations: NonZeroU32,
    prf: Option<&'a [u8]>,
    cipher: &'a [u8],
    iv: &'a [u8],
    data: &'a [u8],
}

/// The PKCS#8 key inside `encrypted`.
pub(super) fn decrypt(encrypted: &[u8], passphrase: &[u8]) -> Result<Vec<u8>, KeyError> {
    let unsupported = |found: &str| KeyError::Unsupported { found: found.to_owned() };
    let parts = parse(encrypted)?;
    let prf = match parts.prf {
        None | Some(OID_HMAC_SHA1) => pbkdf2::PBKDF2_HMAC_SHA1,
        Some(OID_HMAC_SHA256) => pbkdf2::PBKDF2_HMAC_SHA256,
        Some(OID_HMAC_SHA512) => pbkdf2::PBKDF2_HMAC_SHA512,
        Some(_) => return Err(unsupported("a key derivation with this hash function")),
    };
    let key_bytes = match parts.cipher {
        OID_AES_128_CBC => 16,
        OID_AES_192_CBC => 24,
        OID_AES_256_CBC => 32,
        _ => return Err(unsupported("encryption of a key by another cipher than AES in CBC mode")),
    };
    let iv: &[u8; BLOCK] = parts.iv.try_into().map_err(|_| KeyError::Malformed)?;
    let mut key = vec![0; key_bytes];
    pbkdf2::derive(prf, parts.iterations, parts.salt, passphrase, &mut key);
    let plain = match key_bytes {
        16 => cbc(aes::Aes128::new_from_slice(&key).ok(), iv, parts.data),
        24 => cbc(aes::Aes192::new_from_slice(&key).ok(), iv, parts.data),
        _ => cbc(aes::Aes256::new_from_slice(&key).ok(), iv, parts.data),
    };
    // Padding that fits by chance is not a key.
    plain.filter(|plain| Der::only(plain, der::SEQUENCE).is_some()).ok_or(KeyError::WrongPassphrase)
}

fn parse(encrypted: &[u8]) -> Result<Encrypted<'_>, KeyError> {
    let unsupported = |found: &str| KeyError::Unsupported { found: found.to_owned() };
    let (scheme, mut parameters, data) = (|| {
        let mut info = Der::new(Der::only(encrypted, der::SEQUENCE)?);
        let mut algorithm = info.sequence()?;
        let scheme = algorithm.take(der::OID)?;
        let data = info.take(der::OCTET_STRING)?;
        Some((scheme, algorithm, data))
    })()
    .ok_or(KeyError::Malformed)?;
    if scheme != OID_PBES2 {
        return Err(unsupported("encryption of a key by another scheme than PBES2"));
    }
    let (derivation, mut settings, cipher, iv) = (|| {
        let mut parameters = parameters.sequence()?;
        let mut derivation = parameters.sequence()?;
        let mut encryption = parameters.sequence()?;
        Some((
            derivation.take(der::OID)?,
            derivation,
            encryption.take(der::OID)?,
            encryption.take(der::OCTET_STRING)?,
        ))
    })()
    .ok_or(KeyError::Malformed)?;
    match derivation {
        OID_PBKDF2 => {}
        OID_SCRYPT => return Err(unsupported("a key derivation with scrypt (PBKDF2 is)")),
        _ => return Err(unsupported("this kind of key derivation")),
    }
    let (salt, iterations, prf) = (|| {
        let mut settings = settings.sequence()?;
        let salt = settings.take(der::OCTET_STRING)?;
        let iterations = settings.take(der::INTEGER)?;
        if settings.next_is(der::INTEGER) {
            // The length of the key, which the cipher tells too.
            settings.take(der::INTEGER)?;
        }
        let prf = match settings.is_empty() {
            true => None,
            false => Some(settings.sequence()?.take(der::OID)?),
        };
        Some((salt, iterations, prf))
    })()
    .ok_or(KeyError::Malformed)?;
    let iterations = iterations
        .iter()
        .try_fold(0_u32, |number, byte| number.checked_mul(256)?.checked_add(u32::from(*byte)))
        .filter(|number| *number <= ITERATIONS)
        .and_then(NonZeroU32::new)
        .ok_or_else(|| unsupported("this number of iterations of a key derivation"))?;
    Ok(Encrypted { salt, iterations, prf, cipher, iv, data })
}

/// CBC mode with the padding of PKCS#7. `None` when the padding is wrong, as it is with a wrong key.
fn cbc<C>(cipher: Option<C>, iv: &[u8; BLOCK], data: &[u8]) -> Option<Vec<u8>>
where
    C: BlockDecrypt + BlockSizeUser<BlockSize = aes::cipher::consts::U16>,
{
    let cipher = cipher?;
    let mut plain = Vec::with_capacity(data.len());
    let mut previous: &[u8] = iv;
    if data.len() % BLOCK != 0 {
        return None;
    }
    for block in data.chunks_exact(BLOCK) {
        let mut decrypted = GenericArray::clone_from_slice(block);
        cipher.decrypt_block(&mut decrypted);
        plain.extend(decrypted.iter().zip(previous).map(|(byte, mask)| byte ^ mask));
        previous = block;
    }
    let padding = usize::from(*plain.last()?);
    let length = plain.len().checked_sub(padding)?;
    let right = (1..=BLOCK).contains(&padding) && plain[length..].iter().all(|b| usize::from(*b) == padding);
    plain.truncate(length);
    right.then_some(plain)
}
