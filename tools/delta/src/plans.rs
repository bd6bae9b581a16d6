//! How long the plan of a segment becomes. A device sets memory aside for the longest one, several times, and allows so much and no
//! more: what would be longer is said in fewer words.

use delta::{Segment, ZeroRuns};

use crate::matching::Step;

/// Copies of a plan that the format counts.
const COPIES: u64 = 5;
/// What the format counts for the rest of a decoder.
const DECODER_BYTES: u64 = 512 * 1024;
/// Plans of this length are always made, even where that asks for more than devices allow by themselves.
const LEAST_BYTES: usize = 16 * 1024;
/// At most, for what is said of a run or an extent.
const PLACE_BYTES: usize = 12;
/// Digests, counts and lengths.
const FIXED_BYTES: usize = 128;
/// Runs of zeros that are not worth a place in the plan when it has no room, from the best to the last choice.
const SHORTEST: [u32; 6] = [1, 2, 4, 8, 16, 64];

/// What a plan may have for a new image of this length.
pub(crate) fn most_bytes(target_bytes: u64) -> usize {
    let groups = target_bytes.div_ceil(delta::GROUP_BYTES_MAX) + 1;
    let buffers = u64::from(delta::SEGMENT_BYTES_MAX)
        + u64::from(delta::WINDOW_BYTES_MAX)
        + (1 << delta::DECODER_WINDOW_LOG_MAX)
        + DECODER_BYTES
        + groups * 2 * size_of::<delta::Group>() as u64;
    let left = delta::MEMORY_BYTES_MAX.saturating_sub(buffers) / COPIES;
    usize::try_from(left).unwrap_or(0).clamp(LEAST_BYTES, delta::PLAN_BYTES_MAX as usize)
}

/// Bytes of the steps in a plan.
pub(crate) fn of_steps(steps: &[Step]) -> usize {
    let mut place = 0;
    let mut bytes = 0;
    for step in steps {
        let seek = step.from.abs_diff(place);
        bytes += number(step.take) + number(step.insert) + number(2 * seek);
        place = step.from + step.take;
    }
    bytes
}

/// How zeros in the difference are coded: apart, as that brings 5 % with zstd and 7 % with xz, as far as the plan has room.
pub(crate) fn zero_runs(segment: &Segment, most: usize) -> ZeroRuns {
    let places = (segment.runs.len() + segment.extents.len()) * PLACE_BYTES;
    let of_control = |control: &delta::Control| {
        number(control.add as usize)
            + number(control.insert as usize)
            + number(2 * control.seek.unsigned_abs() as usize)
    };
    let control: usize = segment.control.iter().map(of_control).sum();
    let left = most.saturating_sub(FIXED_BYTES + places + control);
    let fits = |shortest: &u32| of_runs(&segment.difference, *shortest as usize) <= left;
    SHORTEST.into_iter().find(fits).map_or(ZeroRuns::Inside, |shortest| ZeroRuns::Apart { shortest })
}

/// Bytes for the runs between zeros of at least this length.
fn of_runs(difference: &[u8], shortest: usize) -> usize {
    let (mut bytes, mut zeros, mut run) = (0, 0, 0);
    // Zeros at the start of the run that is being read, and since its last other byte.
    let mut before = 0;
    for byte in difference {
        if *byte == 0 {
            zeros += 1;
            continue;
        }
        if run > 0 && zeros >= shortest {
            bytes += number(before) + number(run);
            run = 0;
        }
        if run == 0 {
            before = zeros;
        } else {
            run += zeros;
        }
        run += 1;
        zeros = 0;
    }
    if run > 0 { bytes + number(before) + number(run) } else { bytes }
}

/// Bytes of a number: seven bits in each.
fn number(number: usize) -> usize {
    let bits = usize::BITS - number.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_length() {
        assert_eq!([0, 127, 128, 16_383, 16_384].map(number), [1, 1, 2, 2, 3]);
    }

    #[test]
    fn runs_are_joined_where_few_zeros_are_between() {
        let difference = [0, 0, 1, 0, 1, 0, 0, 0, 1, 0];
        assert_eq!([1, 2, 3, 4].map(|shortest| of_runs(&difference, shortest)), [6, 4, 4, 2]);
        assert_eq!(of_runs(&[0; 9], 1), 0);
    }

    #[test]
    fn what_is_allowed_is_enough_for_the_largest_plan_that_is_made() {
        for bytes in [1, 1 << 30, 16 << 30_u64] {
            let head = delta::Head {
                compression: delta::Compression::Zstd,
                needs: delta::Needs {
                    segment_bytes: delta::SEGMENT_BYTES_MAX,
                    window_bytes: delta::WINDOW_BYTES_MAX,
                    plan_bytes: most_bytes(bytes) as u32,
                    decoder_window_log: delta::DECODER_WINDOW_LOG_MAX,
                },
                source: delta::Image { bytes, sha256: [0; 32].into() },
                target: delta::Image { bytes, sha256: [0; 32].into() },
                groups: vec![
                    delta::Group { segments: 1, blocks: 1, stored_bytes: 1, sha256: [0; 32].into() };
                    bytes.div_ceil(delta::GROUP_BYTES_MAX) as usize
                ],
            };
            assert!(head.memory_bytes() <= delta::MEMORY_BYTES_MAX, "{bytes}: {}", head.memory_bytes());
        }
    }
}
