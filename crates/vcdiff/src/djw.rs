//! DJW, xdelta3's own compression of sections: up to eight Huffman codes, chosen anew for every few bytes. Nothing goes on
//! from one section to the next.
//!
//! A section is, in bits: the number of codes less one (3); with more than one of them how many bytes belong to a sector, in
//! fives, less one (5); the code for lengths of codes; the codes, each as 256 lengths; with more than one of them the code for
//! choices, and a choice for each sector; then the bytes. Lengths and choices are said as in bzip2: by their place in a list
//! in which the last one moves to the front, with runs in a binary form of digits 1 and 2.

use crate::bits::Bits;
use crate::error::Fault;

/// Lengths of codes for bytes are at most this.
const LONGEST: usize = 20;
/// What the list of lengths begins with: 0, the usual ones, those that are sometimes there.
const LENGTHS: [u8; 21] = [0, 4, 5, 6, 7, 8, 9, 10, 3, 11, 2, 12, 13, 1, 14, 15, 16, 17, 18, 19, 20];
/// Symbols of the code for lengths: two digits of runs, and a place for each length but the first.
const LENGTH_SYMBOLS: usize = LENGTHS.len() + 1;
/// Of those as many are always said, and the others as far as needed.
const ALWAYS: usize = 7;
const CODES: usize = 8;

/// A Huffman code in the canonical form: shorter codes first, and symbols in their order.
struct Code {
    /// How many codes there are of each length.
    counts: [u16; LONGEST + 1],
    /// The symbols by their codes.
    symbols: Vec<u8>,
}

impl Code {
    fn new(lengths: &[u8]) -> Result<Code, Fault> {
        let mut counts = [0u16; LONGEST + 1];
        for length in lengths {
            *counts.get_mut(usize::from(*length)).ok_or(Fault::Compression)? += 1;
        }
        // More codes than there are bits for would make two symbols of one code.
        let mut free = 1i64;
        for count in counts.iter().skip(1) {
            free = free * 2 - i64::from(*count);
            if free < 0 {
                return Err(Fault::Compression);
            }
        }
        let mut symbols = Vec::with_capacity(lengths.len());
        for wanted in 1..=LONGEST {
            let of_length =
                lengths.iter().zip(0u8..=255).filter(|(length, _)| usize::from(**length) == wanted);
            symbols.extend(of_length.map(|(_, symbol)| symbol));
        }
        Ok(Code { counts, symbols })
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Result<u8, Fault> {
        // The first code of a length, and the place of its symbol.
        let (mut first, mut place, mut code) = (0u32, 0u32, 0u32);
        for count in self.counts.iter().skip(1) {
            code = code << 1 | bits.bit()?;
            first <<= 1;
            let count = u32::from(*count);
            if code < first + count {
                let at = place + (code - first);
                return self.symbols.get(at as usize).copied().ok_or(Fault::Compression);
            }
            first += count;
            place += count;
        }
        Err(Fault::Compression)
    }
}

/// `count` values by their place in `list`, in which each moves to the front. Where the value `before` places earlier is 0, so
/// is this one, without a word.
fn values(
    bits: &mut Bits<'_>,
    code: &Code,
    list: &mut [u8],
    count: usize,
    before: Option<usize>,
) -> Result<Vec<u8>, Fault> {
    let mut values: Vec<u8> = Vec::with_capacity(count);
    let (mut run, mut digit, mut moved) = (0u64, 0u32, None);
    while values.len() < count {
        let earlier = before.and_then(|before| values.len().checked_sub(before));
        if earlier.and_then(|at| values.get(at)) == Some(&0) {
            values.push(0);
        } else if run > 0 {
            values.push(*list.first().ok_or(Fault::Compression)?);
            run -= 1;
        } else if let Some(place) = moved.take() {
            list.get_mut(..=place).ok_or(Fault::Compression)?.rotate_right(1);
            values.push(*list.first().ok_or(Fault::Compression)?);
        } else {
            match code.symbol(bits)? {
                // A run longer than all that is wanted is refused below, so its digits never are more than 32.
                symbol @ (0 | 1) => {
                    run = u64::from(symbol + 1) << digit.min(32);
                    digit += 1;
                }
                symbol => {
                    moved = Some(usize::from(symbol) - 1);
                    digit = 0;
                }
            }
        }
    }
    if run == 0 && moved.is_none() { Ok(values) } else { Err(Fault::Compression) }
}

/// The `bytes` that are compressed in `section`, to the end of `into`.
pub(crate) fn open(section: &[u8], bytes: usize, into: &mut Vec<u8>) -> Result<(), Fault> {
    let mut bits = Bits::new(section);
    let count = bits.number(3)? as usize + 1;
    let sector_bytes = if count > 1 { (bits.number(5)? as usize + 1) * 5 } else { bytes.max(1) };

    let said = ALWAYS + bits.number(4)? as usize;
    let mut lengths = [0u8; LENGTH_SYMBOLS];
    for length in lengths.iter_mut().take(said) {
        *length = bits.number(4)? as u8;
    }
    let lengths = Code::new(&lengths)?;
    let lengths = values(&mut bits, &lengths, &mut LENGTHS.clone(), 256 * count, Some(256))?;
    let codes: Vec<Code> = lengths.chunks(256).map(Code::new).collect::<Result<_, _>>()?;

    let choices = if count > 1 {
        let mut lengths = [0u8; CODES + 1];
        let mut list = [0u8, 1, 2, 3, 4, 5, 6, 7];
        for length in lengths.iter_mut().take(count + 1) {
            *length = bits.number(3)? as u8;
        }
        let choice = Code::new(&lengths)?;
        let list = list.get_mut(..count).ok_or(Fault::Compression)?;
        values(&mut bits, &choice, list, bytes.div_ceil(sector_bytes), None)?
    } else {
        vec![0]
    };

    let mut left = bytes;
    for choice in choices {
        let code = codes.get(usize::from(choice)).ok_or(Fault::Compression)?;
        for _ in 0..left.min(sector_bytes) {
            into.push(code.symbol(&mut bits)?);
        }
        left = left.saturating_sub(sector_bytes);
    }
    bits.end()
}
