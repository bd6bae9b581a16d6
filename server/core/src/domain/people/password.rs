//! Passwords, as they are stored: PBKDF2 with HMAC-SHA256, a salt of its own for each, and its cost beside it.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::pbkdf2;
use serde::{Deserialize, Serialize};

use crate::domain::id::{self, NoRandomness};

/// Rounds for a new password: about half a second of one core at 1.2 million rounds a second.
const ROUNDS: NonZeroU32 = match NonZeroU32::new(600_000) {
    Some(rounds) => rounds,
    None => NonZeroU32::MIN,
};
/// No record asks for more: a damaged one must not keep a core busy for hours.
const MOST_ROUNDS: u32 = 10_000_000;
/// Characters of the shortest password.
const LEAST_CHARS: usize = 8;
/// Bytes of the longest one.
const MOST_BYTES: usize = 1024;

/// A password as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Password {
    /// Its cost.
    rounds: u32,
    salt: String,
    derived: String,
}

/// What is tried first by whoever guesses: the commonest passwords that are long enough, in small letters.
const COMMONEST: [&str; 48] = [
    "00000000",
    "11111111",
    "11223344",
    "12121212",
    "12341234",
    "12345678",
    "123456789",
    "1234567890",
    "123123123",
    "1q2w3e4r",
    "1q2w3e4r5t",
    "1qaz2wsx",
    "66666666",
    "87654321",
    "88888888",
    "987654321",
    "a1234567",
    "a12345678",
    "aa123456",
    "abc12345",
    "abcd1234",
    "admin123",
    "admin1234",
    "administrator",
    "asdfghjkl",
    "baseball",
    "changeme",
    "computer",
    "football",
    "iloveyou",
    "internet",
    "letmein1",
    "p@ssw0rd",
    "passw0rd",
    "password",
    "password1",
    "password12",
    "password123",
    "princess",
    "qwer1234",
    "qwerty12",
    "qwerty123",
    "qwertyuiop",
    "starwars",
    "sunshine",
    "superman",
    "trustno1",
    "welcome1",
];

/// Whether somebody with this address may choose a password; if not, why.
pub(crate) fn check(password: &str, email: &str) -> Result<(), &'static str> {
    if password.chars().count() < LEAST_CHARS {
        return Err("the password has fewer than 8 characters");
    }
    if password.len() > MOST_BYTES {
        return Err("the password is longer than 1024 bytes");
    }
    let small = password.trim().to_lowercase();
    if small == email.to_lowercase() {
        return Err("the password is the address");
    }
    if COMMONEST.contains(&&*small) {
        return Err("the password is one of those that are guessed first");
    }
    Ok(())
}

impl Password {
    /// Of this text. It takes long, by intent.
    ///
    /// # Errors
    /// There are no random numbers for the salt.
    pub(crate) fn new(text: &str) -> Result<Password, NoRandomness> {
        Password::with_rounds(text, ROUNDS)
    }

    fn with_rounds(text: &str, rounds: NonZeroU32) -> Result<Password, NoRandomness> {
        let salt = id::random::<16>()?;
        let mut derived = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, text.as_bytes(), &mut derived);
        Ok(Password { rounds: rounds.get(), salt: STANDARD.encode(salt), derived: STANDARD.encode(derived) })
    }

    /// One that nothing opens: checking it takes as long as checking any other, so that the time of an answer does not
    /// say whether there is a person.
    pub(crate) fn of_nobody() -> Password {
        let (salt, derived) = (STANDARD.encode([0; 16]), STANDARD.encode([0; 32]));
        Password { rounds: ROUNDS.get(), salt, derived }
    }

    /// Whether it is of this text. It takes long.
    pub(crate) fn is(&self, text: &str) -> bool {
        let rounds = NonZeroU32::new(self.rounds).filter(|rounds| rounds.get() <= MOST_ROUNDS);
        let parts = (rounds, STANDARD.decode(&self.salt), STANDARD.decode(&self.derived));
        let (Some(rounds), Ok(salt), Ok(derived)) = parts else { return false };
        text.len() <= MOST_BYTES
            && pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, text.as_bytes(), &derived).is_ok()
    }

    /// Another text for each password that was ever set.
    pub(crate) fn mark(&self) -> &str {
        &self.derived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick(text: &str) -> Password {
        Password::with_rounds(text, NonZeroU32::new(3).unwrap()).unwrap()
    }

    #[test]
    fn a_password_opens_what_was_set_with_it_and_nothing_else() {
        let password = quick("correct horse");
        assert!(password.is("correct horse"));
        for other in ["", "correct hors", "correct horse ", "Correct horse"] {
            assert!(!password.is(other), "{other}");
        }
        assert_ne!(password, quick("correct horse"), "the salt is always another");
        assert!(!Password::of_nobody().is(""));
    }

    #[test]
    fn the_derivation_is_that_of_the_standard() {
        // RFC 7914, section 11: PBKDF2-HMAC-SHA256 of "passwd" and "salt", one round, its first 32 bytes.
        let derived = [
            0x55, 0xac, 0x04, 0x6e, 0x56, 0xe3, 0x08, 0x9f, 0xec, 0x16, 0x91, 0xc2, 0x25, 0x44, 0xb6, 0x05,
            0xf9, 0x41, 0x85, 0x21, 0x6d, 0xde, 0x04, 0x65, 0xe6, 0x8b, 0x9d, 0x57, 0xc2, 0x0d, 0xac, 0xbc,
        ];
        let mut stored =
            Password { rounds: 1, salt: STANDARD.encode("salt"), derived: STANDARD.encode(derived) };
        assert!(stored.is("passwd"));
        // A damaged record opens nothing and costs nothing.
        for rounds in [0, u32::MAX] {
            stored.rounds = rounds;
            assert!(!stored.is("passwd"));
        }
    }

    #[test]
    fn short_and_endless_passwords_are_refused() {
        for password in ["asdf", "1234567", &"x".repeat(1025)] {
            assert!(check(password, "a@x").is_err(), "{password}");
        }
        assert!(check("a23c5e78", "a@x").is_ok() && check("ääääääää", "a@x").is_ok());
    }

    #[test]
    fn what_is_guessed_first_is_refused() {
        for password in ["password", "PassWord1", " 12345678 ", "ada@example.org", "Ada@Example.org"] {
            assert!(check(password, "ada@example.org").is_err(), "{password}");
        }
        assert!(
            check("ada@example.org", "bob@example.org").is_ok() && check("password of ada", "a@x").is_ok()
        );
        for common in COMMONEST {
            assert!(common.chars().count() >= LEAST_CHARS && common == common.to_lowercase(), "{common}");
        }
    }
}
