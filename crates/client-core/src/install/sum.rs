//! A fast sum over what was written, which the same process compares with what it reads back.
//!
//! It guards against the medium: a write that was lost, torn, swapped with another, shifted or put elsewhere. It is no
//! digest: whoever knows the key can make another content with the same sum. The key is drawn by the process, kept in its
//! memory, and gone with it.
//!
//! For two windows of one length that differ in any way, at most one key in 2^61 gives the same sum. The construction is that
//! of VMAC without its last step (Krovetz, Dai: "VHASH security", 2007): NH over blocks of 1 KiB, which is
//! 2^-62-almost-universal in its lower 126 bits, then a polynomial of these modulo 2^127 - 1.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Bytes that go into one value of NH, and words of its key.
const BLOCK_BYTES: usize = 1024;
const KEY_WORDS: usize = BLOCK_BYTES / 8;

/// 2^127 - 1, a prime.
const PRIME: u128 = (1 << 127) - 1;
/// The bits of a value of NH that are used: it is smaller than the prime.
const NH_MASK: u128 = (1 << 126) - 1;

/// What a process draws once for each image.
struct Key {
    words: [u64; KEY_WORDS],
    multiplier: u128,
}

impl Key {
    fn draw() -> Key {
        // The standard library's source of keys that nobody outside can know, without another dependency.
        let source = RandomState::new();
        let word = |number: usize| source.hash_one(number);
        let multiplier = u128::from(word(KEY_WORDS)) << 64 | u128::from(word(KEY_WORDS + 1));
        Key { words: std::array::from_fn(word), multiplier: reduced(multiplier >> 1) }
    }

    /// NH of one block; a shorter one counts as filled up with zeros.
    fn nh(&self, block: &[u8]) -> u128 {
        let mut total: u128 = 0;
        for (pair, keys) in block.chunks_exact(16).zip(self.words.chunks_exact(2)) {
            let (Some(first), Some(second), &[first_key, second_key]) =
                (pair.first_chunk(), pair.last_chunk(), keys)
            else {
                continue;
            };
            let first = u64::from_ne_bytes(*first).wrapping_add(first_key);
            let second = u64::from_ne_bytes(*second).wrapping_add(second_key);
            total = total.wrapping_add(u128::from(first) * u128::from(second));
        }
        total & NH_MASK
    }
}

/// The sum of a window as it grows.
pub(super) struct Sum {
    key: Arc<Key>,
    value: u128,
}

impl Sum {
    /// With a key of its own.
    pub(super) fn new() -> Sum {
        Sum { key: Arc::new(Key::draw()), value: 0 }
    }

    /// Of nothing yet, with the same key: equal bytes will have equal sums.
    pub(super) fn another(&self) -> Sum {
        Sum { key: Arc::clone(&self.key), value: 0 }
    }

    /// Takes the next bytes. Every piece but the last one has whole kibibytes: where they are parted does not matter then.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        let whole = bytes.len() / BLOCK_BYTES * BLOCK_BYTES;
        let (blocks, rest) = bytes.split_at(whole);
        for block in blocks.chunks_exact(BLOCK_BYTES) {
            self.take(self.key.nh(block));
        }
        if !rest.is_empty() {
            let mut block = [0; BLOCK_BYTES];
            if let Some(start) = block.get_mut(..rest.len()) {
                start.copy_from_slice(rest);
            }
            self.take(self.key.nh(&block));
        }
    }

    fn take(&mut self, nh: u128) {
        // One more than the value, so that a beginning of zeros is not the same as none of it.
        self.value = added(product(self.value, self.key.multiplier), nh + 1);
    }

    /// The sum of all that was taken; the next window begins.
    pub(super) fn finish(&mut self) -> u128 {
        std::mem::take(&mut self.value)
    }
}

/// A number below 2^128 modulo the prime, but for the prime itself, which stands for zero as well.
fn reduced(number: u128) -> u128 {
    (number & PRIME) + (number >> 127)
}

/// The sum of two numbers below 2^127, modulo the prime.
fn added(one: u128, other: u128) -> u128 {
    reduced(one.wrapping_add(other))
}

/// The product of two numbers below 2^127, modulo the prime.
fn product(one: u128, other: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (one_high, one_low, other_high, other_low) = (one >> 64, one & LOW, other >> 64, other & LOW);
    let high = one_high * other_high;
    // Each below 2^127.
    let middle = one_high * other_low + one_low * other_high;
    let low = one_low * other_low;
    // 2^127 is one: `high` counts 2^128, `middle` 2^64, of which what lies above its 63rd bit wraps around.
    let wrapped = added(high << 1, middle >> 63);
    added(added(wrapped, (middle & (LOW >> 1)) << 64), reduced(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By doubling and adding alone.
    fn slow_product(one: u128, other: u128) -> u128 {
        (0..127).rev().fold(0, |total, bit| {
            let doubled = added(total, total);
            if other >> bit & 1 == 1 { added(doubled, one) } else { doubled }
        })
    }

    /// The prime stands for zero as well.
    fn settled(number: u128) -> u128 {
        if number == PRIME { 0 } else { number }
    }

    fn noise(len: usize) -> Vec<u8> {
        let source = RandomState::new();
        (0..len).map(|at| source.hash_one(at).to_le_bytes()[0]).collect()
    }

    fn sum_of(sum: &Sum, bytes: &[u8]) -> u128 {
        let mut sum = sum.another();
        sum.update(bytes);
        sum.finish()
    }

    #[test]
    fn the_product_is_that_of_the_school() {
        let source = RandomState::new();
        let number = |n: u64| (u128::from(source.hash_one(n)) << 64 | u128::from(source.hash_one(!n))) >> 1;
        let edges = [0, 1, 2, PRIME, PRIME - 1, 1 << 126, u128::from(u64::MAX), (1 << 64) + 1];
        let numbers: Vec<u128> = edges.into_iter().chain((0..100).map(number)).collect();
        for &one in &numbers {
            for &other in &numbers {
                let expected = settled(slow_product(one, other));
                assert_eq!(settled(product(one, other)), expected, "{one:x} * {other:x}");
            }
        }
    }

    #[test]
    fn pieces_of_whole_kibibytes_have_the_sum_of_the_whole() {
        let bytes = noise(10 * 1024 + 300);
        let mut sum = Sum::new();
        let whole = sum_of(&sum, &bytes);
        for piece in [1024, 4096, 7 * 1024] {
            bytes.chunks(piece).for_each(|piece| sum.update(piece));
            assert_eq!(sum.finish(), whole, "{piece}");
        }
        assert_ne!(sum_of(&Sum::new(), &bytes), whole, "another process, another key");
    }

    #[test]
    fn whatever_a_medium_does_to_a_window_changes_its_sum() {
        let sum = Sum::new();
        let good = noise(64 * 1024);
        let mut seen = vec![sum_of(&sum, &good)];
        let mut spoil = |what: &str, spoil: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            spoil(&mut bytes);
            let found = sum_of(&sum, &bytes);
            assert!(!seen.contains(&found), "{what}");
            seen.push(found);
        };
        for bit in [0, 9, 8 * 40_000, 8 * (64 * 1024) - 1] {
            spoil("one bit", &|bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        }
        for sector in [512, 4096] {
            spoil("a lost sector", &|bytes| bytes[sector..2 * sector].fill(0));
            spoil("swapped sectors", &|bytes| {
                let (one, other) = bytes.split_at_mut(5 * sector);
                one[..sector].swap_with_slice(&mut other[..sector]);
            });
            spoil("a shift", &|bytes| bytes.rotate_right(sector));
            spoil("one sector twice", &|bytes| bytes.copy_within(0..sector, 8 * sector));
        }
        spoil("nothing at all", &|bytes| bytes.fill(0));
        spoil("swapped words", &|bytes| {
            let (one, other) = bytes.split_at_mut(8);
            one.swap_with_slice(&mut other[..8]);
        });
        let zeros = |len| sum_of(&sum, &vec![0; len]);
        assert_ne!(zeros(1024), zeros(2048));
    }
}
