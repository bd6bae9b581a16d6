//! The second factor of a login: codes of six digits, made of a secret and of the time (TOTP, RFC 6238, with HMAC-SHA-1, which is
//! what programs for it speak).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::domain::id::{self, NoRandomness};
use crate::model::time::Timestamp;

/// "We RECOMMEND a default time-step size of 30 seconds" (RFC 6238, section 5.2).
const STEP_SECONDS: u64 = 30;
/// "We RECOMMEND that at most one time step is allowed as the network delay" (the same), and a clock may be ahead as well.
const DRIFT_STEPS: u64 = 1;
/// "This document RECOMMENDs a shared secret length of 160 bits" (RFC 4226, section 4).
const SECRET_BYTES: usize = 20;
/// Digits of a code.
const DIGITS: usize = 6;
/// What programs show it as.
const ISSUER: &str = "rust-ota";

/// A secret that a person has as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecondFactor {
    secret: String,
    /// Whether a login needs a code: not before one has shown that the person has the secret.
    pub(crate) is_on: bool,
    /// The step of the newest code that was taken.
    used: u64,
}

impl SecondFactor {
    /// A new one, which is off.
    ///
    /// # Errors
    /// There are no random numbers.
    pub(crate) fn new() -> Result<SecondFactor, NoRandomness> {
        Ok(SecondFactor { secret: STANDARD.encode(id::random::<SECRET_BYTES>()?), is_on: false, used: 0 })
    }

    fn key(&self) -> Vec<u8> {
        // A damaged one has no code that anybody could know.
        STANDARD.decode(&self.secret).unwrap_or_default()
    }

    /// The secret as people type it.
    pub(crate) fn secret(&self) -> String {
        base32(&self.key())
    }

    /// The same as programs read it from a picture.
    pub(crate) fn uri(&self, email: &str) -> String {
        let mut label = String::new();
        for byte in email.bytes() {
            match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                true => label.push(char::from(byte)),
                false => label += &format!("%{byte:02X}"),
            }
        }
        format!("otpauth://totp/{ISSUER}:{label}?secret={}&issuer={ISSUER}", self.secret())
    }

    /// Takes a code, once: false when it is none now, or when it or a later one was taken before.
    pub(crate) fn take(&mut self, code: &str, now: Timestamp) -> bool {
        let key = self.key();
        let step = now.seconds() / STEP_SECONDS;
        let near = step.saturating_sub(DRIFT_STEPS)..=step.saturating_add(DRIFT_STEPS);
        let typed: String = code.chars().filter(|letter| !letter.is_whitespace()).collect();
        // Every step is looked at, whichever it is.
        let fitting = near.filter(|step| code_at(&key, *step) == typed).max();
        match fitting.filter(|step| *step > self.used && !key.is_empty()) {
            Some(step) => {
                self.used = step;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
impl SecondFactor {
    /// The codes that are good at a time, the oldest first.
    pub(crate) fn codes_near(&self, now: Timestamp) -> [String; 3] {
        let step = now.seconds() / STEP_SECONDS;
        [step - 1, step, step + 1].map(|step| code_at(&self.key(), step))
    }
}

/// The code of a step (RFC 4226, section 5.3).
fn code_at(key: &[u8], step: u64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag.last().copied().unwrap_or_default() & 0x0f);
    let bytes = tag.iter().skip(at).take(4).fold(0_u32, |number, byte| (number << 8) | u32::from(*byte));
    let number = (bytes & 0x7fff_ffff) % 10_u32.pow(DIGITS as u32);
    format!("{number:0DIGITS$}")
}

/// RFC 4648, section 6, without the padding: programs want none.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::new();
    for part in bytes.chunks(5) {
        let mut five = [0; 8];
        five[3..3 + part.len()].copy_from_slice(part);
        let number = u64::from_be_bytes(five);
        let letters = (part.len() * 8).div_ceil(5);
        for letter in 0..letters {
            let index = (number >> (35 - 5 * letter)) & 31;
            text.push(char::from(LETTERS[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(secret: &[u8]) -> SecondFactor {
        SecondFactor { secret: STANDARD.encode(secret), is_on: true, used: 0 }
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 6238, appendix B: the last six of eight digits, for SHA-1.
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code_at(b"12345678901234567890", seconds / 30), code, "{seconds}");
        }
    }

    #[test]
    fn secrets_are_written_as_the_standard_says() {
        // RFC 4648, section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text, "{bytes}");
        }
        assert_eq!(SecondFactor::new().unwrap().secret().len(), 32);
        assert_ne!(SecondFactor::new(), SecondFactor::new());
        assert_eq!(
            of(b"foobar").uri("a+b@x"),
            "otpauth://totp/rust-ota:a%2Bb%40x?secret=MZXW6YTBOI&issuer=rust-ota"
        );
    }

    #[test]
    fn a_code_is_taken_once_and_one_step_before_and_after_its_time() {
        let secret = b"12345678901234567890";
        let step = 40_000_000;
        let taken = |code: u64, now: u64| {
            let now = Timestamp((now * STEP_SECONDS + 7) * 1000);
            of(secret).take(&code_at(secret, code), now)
        };
        for (code, expected) in
            [(step - 2, false), (step - 1, true), (step, true), (step + 1, true), (step + 2, false)]
        {
            assert_eq!(taken(code, step), expected, "{code}");
        }
        let mut factor = of(secret);
        let now = Timestamp(step * STEP_SECONDS * 1000);
        let code = |step: u64| code_at(secret, step);
        assert!(factor.take(&code(step), now));
        for used in [step, step - 1] {
            assert!(!factor.take(&code(used), now), "{used}");
        }
        let spaced = format!(" {} {} ", &code(step + 1)[..3], &code(step + 1)[3..]);
        assert!(factor.take(&spaced, now));
        for wrong in ["", "0", "000000 ", "abcdef", &code(step + 5), &"1".repeat(10_000)] {
            assert!(!of(secret).take(wrong, now), "{wrong}");
        }
    }

    #[test]
    fn a_damaged_secret_opens_nothing() {
        let mut damaged = SecondFactor { secret: "*".to_owned(), is_on: true, used: 0 };
        let now = Timestamp(1_000_000_000);
        assert!(!damaged.take(&code_at(b"", now.seconds() / STEP_SECONDS), now));
    }
}
