//! What a deployment would do, and who begins first, worked out of sets of devices: a million devices are asked for by what they
//! have in common, not one after the other.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::model::{Artifact, PhaseSize};

/// Devices by what they have reported.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    /// Those that report one of some values, by the name of the attribute and the values.
    pub(crate) with: BTreeMap<(String, Vec<String>), RoaringBitmap>,
    /// Those that report an attribute at all.
    pub(crate) any: BTreeMap<String, RoaringBitmap>,
}

/// The attribute that every artifact asks for.
pub(crate) const DEVICE_TYPE: &str = "device_type";

impl Reported {
    /// What has to be known for some artifacts.
    pub(crate) fn wanted(artifacts: &[Arc<Artifact>]) -> Reported {
        let mut wanted = Reported::default();
        for artifact in artifacts {
            let types = (DEVICE_TYPE.to_owned(), artifact.device_types.clone());
            let depends = artifact.depends.iter().map(|(key, values)| (key.clone(), values.clone()));
            for (key, values) in depends.chain([types]) {
                wanted.any.entry(key.clone()).or_default();
                wanted.with.entry((key, values)).or_default();
            }
        }
        wanted
    }

    fn of_type(&self, artifact: &Artifact) -> RoaringBitmap {
        let key = (DEVICE_TYPE.to_owned(), artifact.device_types.clone());
        self.with.get(&key).cloned().unwrap_or_default()
    }

    /// The devices that an artifact fits, by how much of what it asks for they have not reported.
    fn fitting(&self, artifact: &Artifact, devices: &RoaringBitmap) -> Vec<RoaringBitmap> {
        let mut fitting = vec![self.of_type(artifact) & devices];
        for (key, values) in &artifact.depends {
            let (any, with) = (self.any.get(key), self.with.get(&(key.clone(), values.clone())));
            let mut next = vec![RoaringBitmap::new(); fitting.len() + 1];
            for (unknown, set) in fitting.iter().enumerate() {
                if let (Some(same), Some(with)) = (next.get_mut(unknown), with) {
                    *same |= set & with;
                }
                if let (Some(more), Some(any)) = (next.get_mut(unknown + 1), any) {
                    *more |= set - any;
                }
            }
            while next.last().is_some_and(RoaringBitmap::is_empty) {
                next.pop();
            }
            fitting = next;
        }
        fitting
    }
}

/// What devices would get.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// Artifacts with the devices that get them.
    pub(crate) given: Vec<(Arc<Artifact>, RoaringBitmap)>,
    /// No artifact is for their type.
    pub(crate) other_type: RoaringBitmap,
    /// An artifact is for their type, and none fits.
    pub(crate) unfit: RoaringBitmap,
    /// Bytes that need not be loaded because a smaller artifact than the full one fits.
    pub(crate) saved: u64,
}

/// Which artifact each device would get: what [`choose`](super::choose) says of each.
pub(crate) fn shares(artifacts: &[Arc<Artifact>], reported: &Reported, devices: &RoaringBitmap) -> Shares {
    let mut left = RoaringBitmap::new();
    let mut ranked = Vec::new();
    for artifact in artifacts {
        left |= reported.of_type(artifact) & devices;
        let fitting = reported.fitting(artifact, devices).into_iter().enumerate();
        let fitting = fitting.filter(|(_, set)| !set.is_empty());
        ranked.extend(fitting.map(|(unknown, set)| (unknown, artifact, set)));
    }
    let other_type = devices - &left;
    ranked.sort_by_key(|(unknown, artifact, _)| (*unknown, artifact.size, artifact.id.clone()));
    let mut given: BTreeMap<String, (Arc<Artifact>, RoaringBitmap)> = BTreeMap::new();
    for (_, artifact, set) in ranked {
        let set = set & &left;
        left -= &set;
        if !set.is_empty() {
            let new = || (artifact.clone(), RoaringBitmap::new());
            given.entry(artifact.id.clone()).or_insert_with(new).1 |= set;
        }
    }
    let given: Vec<_> = given.into_values().collect();
    let mut full: Vec<&Arc<Artifact>> =
        artifacts.iter().filter(|artifact| artifact.depends.is_empty()).collect();
    full.sort_by_key(|artifact| artifact.size);
    let mut saved = 0_u64;
    for (artifact, set) in &given {
        let mut set = set.clone();
        for full in &full {
            let same = reported.of_type(full) & &set;
            set -= &same;
            let each = full.size.saturating_sub(artifact.size);
            saved = saved.saturating_add(each.saturating_mul(same.len()));
        }
    }
    Shares { given, other_type, unfit: left, saved }
}

/// How many of so many devices each phase is for.
pub(crate) fn phase_counts(sizes: &[PhaseSize], device_count: u64) -> Vec<u64> {
    let mut left = device_count;
    let mut count = |size: &PhaseSize| {
        let most = size.devices(device_count).min(left);
        left -= most;
        most
    };
    sizes.iter().map(&mut count).collect()
}

/// The place of a device in the order in which devices are taken: mixed, and the same each time (SplitMix64).
fn place(number: u32) -> u64 {
    let mut z = u64::from(number).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// So many devices that come first: those that were heard of lately, in the order of their places.
fn first(set: &RoaringBitmap, recent: &RoaringBitmap, count: usize) -> Vec<u32> {
    let mut heap = BinaryHeap::with_capacity(count.saturating_add(1));
    for number in set {
        heap.push((!recent.contains(number), place(number), number));
        if heap.len() > count {
            heap.pop();
        }
    }
    heap.into_sorted_vec().into_iter().map(|(_, _, number)| number).collect()
}

/// Devices that spread over values. `values` has of each attribute the devices with each value: at first one device of each value
/// that none has yet, then again one of each value, as long as `count` lasts.
pub(crate) fn spread(values: &[Vec<RoaringBitmap>], recent: &RoaringBitmap, count: usize) -> Vec<u32> {
    let most = values.iter().map(Vec::len).max().unwrap_or(0);
    // Of each attribute in turn, so that none uses up the others' places.
    let in_turn = (0..most).flat_map(|at| values.iter().filter_map(move |sets| sets.get(at)));
    let mut lists: Vec<_> = in_turn.map(|set| (set, first(set, recent, count).into_iter())).collect();
    let mut chosen = RoaringBitmap::new();
    let mut order = Vec::new();
    let mut is_first = true;
    loop {
        let before = order.len();
        for (set, list) in &mut lists {
            if order.len() >= count {
                return order;
            }
            if is_first && !set.is_disjoint(&chosen) {
                continue;
            }
            if let Some(number) = list.find(|number| chosen.insert(*number)) {
                order.push(number);
            }
        }
        if order.len() == before && !is_first {
            return order;
        }
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::{Request, choose};
    use super::*;

    fn artifact(id: &str, size: u64, types: &[&str], depends: &[(&str, &[&str])]) -> Arc<Artifact> {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        Arc::new(Artifact {
            depends: depends.iter().map(|(key, values)| ((*key).to_owned(), owned(values))).collect(),
            size,
            ..Artifact::plain(id, "release-2", types)
        })
    }

    #[test]
    fn sets_of_devices_get_what_each_of_them_would_be_given() {
        let artifacts = [
            artifact("full", 100, &["a", "b"], &[]),
            artifact("delta-1", 10, &["a"], &[("sum", &["1"])]),
            artifact("delta-2", 20, &["a", "b"], &[("sum", &["1", "2"])]),
            artifact("two", 5, &["a"], &[("sum", &["3"]), ("part", &["x"])]),
            artifact("needs", 50, &["c"], &[("part", &["x"])]),
        ];
        // Every device that differs in what matters.
        let mut provided: Vec<BTreeMap<String, String>> = Vec::new();
        for device_type in ["a", "b", "c", "d"] {
            for sum in ["", "1", "2", "3", "4"] {
                for part in ["", "x", "y"] {
                    let all = [(DEVICE_TYPE, device_type), ("sum", sum), ("part", part)];
                    let all = all.into_iter().filter(|(_, value)| !value.is_empty());
                    provided.push(all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
                }
            }
        }
        let numbered = || (0_u32..).zip(&provided);
        let mut reported = Reported::wanted(&artifacts);
        for ((key, values), set) in &mut reported.with {
            let has =
                |one: &BTreeMap<String, String>| one.get(key).is_some_and(|value| values.contains(value));
            *set = numbered().filter(|(_, one)| has(one)).map(|(number, _)| number).collect();
        }
        for (key, set) in &mut reported.any {
            *set = numbered().filter(|(_, one)| one.contains_key(key)).map(|(number, _)| number).collect();
        }
        let devices = (0..60).collect();
        let shares = shares(&artifacts, &reported, &devices);
        let mut saved = 0;
        for (number, provides) in numbered() {
            let device_type = provides[DEVICE_TYPE].clone();
            let request = Request {
                artifact_name: String::new(),
                device_type: device_type.clone(),
                provides: provides.clone(),
                complete: false,
            };
            let given: Vec<&str> = shares
                .given
                .iter()
                .filter(|(_, set)| set.contains(number))
                .map(|(artifact, _)| artifact.id.as_str())
                .collect();
            let chosen = choose(&artifacts, &request);
            assert_eq!(given, chosen.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), "{provides:?}");
            assert_eq!(shares.other_type.contains(number), device_type == "d");
            assert_eq!(shares.unfit.contains(number), chosen.is_none() && device_type != "d");
            saved += chosen.map_or(0, |chosen| super::super::choice::saved(&artifacts, chosen, &request));
        }
        assert_eq!(shares.saved, saved);
    }

    #[test]
    fn the_first_devices_have_one_of_each_value_while_there_are_places() {
        let all = |range: std::ops::Range<u32>| range.collect::<RoaringBitmap>();
        let types = vec![all(0..900), all(900..990), all(990..1000)];
        let regions = vec![all(0..500), all(500..999), all(999..1000)];
        let values = [types.clone(), regions.clone()];
        let none = RoaringBitmap::new();
        let chosen = spread(&values, &none, 6);
        assert_eq!(chosen.len(), 6);
        assert!(types.iter().chain(&regions).all(|set| chosen.iter().any(|number| set.contains(*number))));
        assert_eq!(spread(&values, &none, 6), chosen, "the same each time");
        assert_eq!(spread(&values, &none, 2), chosen[..2]);
        // Who was heard of lately comes before others.
        let recent = all(100..110) | all(985..986);
        let chosen = spread(std::slice::from_ref(&types), &recent, 3);
        assert!(recent.contains(chosen[0]) && chosen[1] == 985 && types[2].contains(chosen[2]), "{chosen:?}");
        // There are no more devices than there are.
        assert_eq!(spread(&[vec![all(0..2)]], &none, 9).len(), 2);
        assert!(spread(&[], &none, 9).is_empty());
    }

    #[test]
    fn phases_share_the_devices() {
        let sizes = [PhaseSize::Percent(10.0), PhaseSize::Devices(3), PhaseSize::Rest];
        assert_eq!(phase_counts(&sizes, 20), [2, 3, 15]);
        assert_eq!(phase_counts(&sizes, 2), [1, 1, 0]);
    }
}
