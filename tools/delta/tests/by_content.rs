//! Images that are no file system: everything is found by content.

use delta::Compression::{Xz, Zstd};

use crate::pair::{Numbers, image, make};

const MIB: usize = 1 << 20;

#[test]
fn content_that_moved_is_found() {
    let numbers = Numbers::new(1);
    let old = numbers.program(6 * MIB);
    // Forward by a length that is no number of blocks, and with a new piece in the middle.
    let mut new = numbers.bytes(5000);
    new.extend_from_slice(&old[..3 * MIB]);
    new.extend_from_slice(&numbers.bytes(7000));
    new.extend_from_slice(&old[3 * MIB..]);
    let made = make(&image(&old), &image(&new), Zstd, 1);
    assert!(made.file.len() < 20_000, "{} bytes", made.file.len());
    assert_eq!(made.made.files, None);
}

#[test]
fn blocks_that_moved_are_copied_and_zeros_cost_nothing() {
    let numbers = Numbers::new(2);
    let block: Vec<u8> = numbers.bytes(2 * MIB);
    let old = [&vec![0; MIB][..], &block].concat();
    let new = [&block[MIB..], &vec![0; 20 * MIB], &block[..MIB]].concat();
    let made = make(&image(&old), &image(&new), Zstd, 1);
    assert_eq!((made.made.coded_bytes, made.made.copied_bytes), (0, 2 * MIB as u64));
    assert_eq!(made.made.zero_bytes, 20 * MIB as u64);
    assert!(made.file.len() < 3000, "{} bytes", made.file.len());
}

#[test]
fn numbers_that_changed_all_over_cost_little() {
    let numbers = Numbers::new(3);
    let old = numbers.program(2 * MIB);
    let mut new = old.clone();
    for at in (100..new.len()).step_by(1000) {
        new[at] = new[at].wrapping_add(7);
    }
    for compression in [Zstd, Xz] {
        let made = make(&image(&old), &image(&new), compression, 1);
        assert!(made.file.len() < 12_000, "{compression:?}: {} bytes", made.file.len());
    }
}

#[test]
fn random_data_costs_no_more_than_itself() {
    let numbers = Numbers::new(4);
    let (old, new) = (numbers.bytes(MIB), numbers.bytes(MIB + 777));
    for compression in [Zstd, Xz] {
        let made = make(&image(&old), &image(&new), compression, 1);
        assert!(made.file.len() * 100 <= new.len() * 101, "{compression:?}: {} bytes", made.file.len());
    }
}

#[test]
fn any_lengths_fit_together() {
    let numbers = Numbers::new(5);
    let old = numbers.program(300_000);
    for length in [1, 4095, 4096, 4097, 300_000] {
        make(&image(&old), &image(&old[..length]), Zstd, 1);
        make(&image(&old[..length]), &image(&old), Zstd, 1);
    }
    make(&image(&[]), &image(&old), Zstd, 1);
}

#[test]
fn an_empty_new_image_is_refused() {
    let options = delta_make::Options { compression: Zstd, jobs: 1 };
    let mut groups = Vec::new();
    let error =
        delta_make::make(&image(&[1; 5000]), &image(&[]), &options, &mut groups, &|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "the new image is empty");
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let numbers = Numbers::new(6);
    let old = numbers.program(2 * MIB);
    // Four groups.
    let mut new = Vec::new();
    for _ in 0..4 {
        let mut part = old[numbers.below(MIB)..][..MIB].to_vec();
        for _ in 0..200 {
            let at = numbers.below(part.len());
            part[at] ^= 0x55;
        }
        new.extend_from_slice(&part);
        new.resize(new.len().next_multiple_of(16 * MIB), 0);
    }
    let files: Vec<Vec<u8>> = [1, 3].map(|jobs| make(&image(&old), &image(&new), Zstd, jobs).file).to_vec();
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn repeated_content_ends_in_time() {
    // What sorting and searching of suffixes are slow at.
    let numbers = Numbers::new(7);
    let mut old = b"ab".repeat(MIB / 2);
    let mut new = b"ab".repeat(MIB / 2);
    for _ in 0..50 {
        old[numbers.below(MIB)] = 0xFF;
        new[numbers.below(MIB)] = 0xFE;
    }
    make(&image(&old), &image(&new), Zstd, 1);
}

#[test]
fn a_difference_in_every_second_byte_and_a_step_every_few_bytes_have_plans_that_devices_take() {
    let numbers = Numbers::new(8);
    let old = numbers.bytes(MIB);
    let mut new = old.clone();
    for at in (0..new.len()).step_by(5) {
        new[at] = new[at].wrapping_add(1 + numbers.below(250) as u8);
    }
    make(&image(&old), &image(&new), Zstd, 1);
    // Pieces of 20 bytes from anywhere.
    let new: Vec<u8> = (0..MIB / 20).flat_map(|_| old[numbers.below(MIB - 20)..][..20].to_vec()).collect();
    make(&image(&old), &image(&new), Zstd, 1);
}
