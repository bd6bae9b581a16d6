//! A whole update, written down: what the disks were told in each boot, and what the server knew at each point of it. From one
//! of them the power can be cut at any point, any number of times, without running the update up to there again.
//!
//! Between two requests of the device the server stays as it is. A point belongs to the stretch between two requests in
//! which it is certain to lie; the few writes around a request that may belong to either side are no points.

use std::path::{Path, PathBuf};

use testkit::choice::Generator;

/// The update.
#[derive(Debug, Default)]
pub struct Trace {
    /// From one power on to the next.
    pub runs: Vec<Run>,
}

/// One run of the machine.
#[derive(Debug, Default)]
pub struct Run {
    /// In their order.
    pub stretches: Vec<Stretch>,
    /// Writes to the boot environment: the disk, and the entry of its log.
    pub written: Vec<(usize, u64)>,
}

/// A time in which neither server nor flash changed.
#[derive(Debug)]
pub struct Stretch {
    /// The folder of the server as it was.
    pub server: PathBuf,
    /// The boot environment outside of the disks: place and content.
    pub own: Vec<(u64, Vec<u8>)>,
    /// How many entries the logs of the disks had, each time that it was looked.
    pub entries: Vec<Vec<u64>>,
}

/// Where the power goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// In which run.
    pub run: usize,
    /// In which stretch of it.
    pub stretch: usize,
    /// What is left of the log of each disk.
    pub entries: Vec<u64>,
}

impl Point {
    /// What went wrong after a cut here.
    pub fn because(&self, error: &str) -> String {
        format!("cut in boot {} after {:?} writes and flushes: {error}", self.run + 1, self.entries)
    }
}

/// How many entries before and after a write to the environment are near it.
const NEAR: u64 = 2;

impl Run {
    /// Leaves out the points that would begin from this folder of the server.
    pub fn forget(&mut self, server: &Path) {
        for stretch in self.stretches.iter_mut().filter(|stretch| stretch.server == server) {
            stretch.entries.clear();
        }
    }
}

impl Trace {
    /// All points, in their order.
    pub fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for (run, recorded) in self.runs.iter().enumerate() {
            for (stretch, seen) in recorded.stretches.iter().enumerate() {
                let point = |entries| Point { run, stretch, entries };
                match (seen.entries.first().map(Vec::as_slice), seen.entries.last().map(Vec::as_slice)) {
                    // With one disk every number in between is a moment; with several only what was seen is.
                    (Some([first]), Some([last])) => {
                        points.extend((*first..=*last).map(|entry| point(vec![entry])));
                    }
                    (Some(_), Some(_)) | (None, _) | (_, None) => {
                        points.extend(seen.entries.iter().cloned().map(point));
                    }
                }
            }
        }
        points.dedup();
        points
    }

    /// Those at which the boot environment is written: just before a write, after it, and a little later. Where it is in a
    /// flash, the first ones after each change of that.
    pub fn points_at_environment(&self) -> Vec<Point> {
        let all = self.points();
        let is_near = |point: &Point| {
            let run = &self.runs[point.run];
            let near = |&(disk, entry): &(usize, u64)| {
                point.entries[disk] + 1 >= entry && point.entries[disk] <= entry + NEAR
            };
            let changed = point.stretch > 0
                && run.stretches[point.stretch].own != run.stretches[point.stretch - 1].own
                && run.stretches[point.stretch].entries.iter().take(2).any(|seen| *seen == point.entries);
            run.written.iter().any(near) || changed
        };
        all.into_iter().filter(is_near).collect()
    }

    /// `count` points: every other one at the environment, each half one out of each of as many parts of the same length as
    /// it has points.
    pub fn choose(&self, count: usize, random: &mut Generator) -> Vec<Point> {
        let at_environment = self.points_at_environment();
        let half = if at_environment.is_empty() { 0 } else { count / 2 };
        let mut chosen = spread(&at_environment, half, random);
        chosen.extend(spread(&self.points(), count - half, random));
        chosen.sort();
        chosen
    }
}

fn spread(points: &[Point], count: usize, random: &mut Generator) -> Vec<Point> {
    let part = |number: usize| {
        let (first, end) = (number * points.len() / count, (number + 1) * points.len() / count);
        let within = usize::try_from(random.next_word() % (end - first).max(1) as u64).unwrap_or(0);
        points.get(first + within).cloned()
    };
    (0..count).filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(entries: &[&[u64]]) -> Stretch {
        let entries = entries.iter().map(|entries| entries.to_vec()).collect();
        Stretch { server: PathBuf::new(), own: Vec::new(), entries }
    }

    fn update() -> Trace {
        let first = Run {
            stretches: vec![stretch(&[&[0], &[40]]), stretch(&[]), stretch(&[&[43], &[100]])],
            written: vec![(0, 60)],
        };
        let second = Run { stretches: vec![stretch(&[&[0], &[20]])], written: vec![(0, 0)] };
        Trace { runs: vec![first, second] }
    }

    #[test]
    fn every_moment_that_belongs_to_one_state_of_the_server_is_a_point() {
        let points = update().points();
        assert_eq!(points.len(), 41 + 58 + 21);
        let is_there = |run: usize, entry: u64| points.iter().any(|p| p.run == run && p.entries == [entry]);
        assert!(is_there(0, 0) && is_there(0, 40) && is_there(0, 43) && is_there(0, 100) && is_there(1, 20));
        // The device asked something in between.
        assert!(!is_there(0, 41) && !is_there(0, 42));
    }

    #[test]
    fn a_server_that_knew_too_much_is_no_beginning() {
        let mut trace = update();
        trace.runs[0].stretches[0].server = "ahead".into();
        trace.runs[0].forget(Path::new("ahead"));
        assert_eq!(trace.points().len(), 58 + 21);
    }

    #[test]
    fn with_two_disks_only_what_was_seen_is_a_moment() {
        let run = Run { stretches: vec![stretch(&[&[0, 0], &[5, 0], &[5, 9]])], written: vec![(1, 9)] };
        let trace = Trace { runs: vec![run] };
        assert_eq!(trace.points().len(), 3);
        assert_eq!(trace.points_at_environment().len(), 1);
    }

    #[test]
    fn half_of_the_cuts_are_where_the_environment_is_written_and_another_seed_cuts_elsewhere() {
        let trace = update();
        let near: Vec<Point> = trace.points_at_environment();
        let entries: Vec<u64> = near.iter().filter(|p| p.run == 0).map(|p| p.entries[0]).collect();
        assert_eq!(entries, [59, 60, 61, 62]);
        let one = trace.choose(10, &mut Generator::new(1));
        assert_eq!(one.len(), 10);
        assert!(one.iter().filter(|point| near.contains(point)).count() >= 5, "{one:?}");
        assert_eq!(one, trace.choose(10, &mut Generator::new(1)));
        assert_ne!(one, trace.choose(10, &mut Generator::new(2)));
        assert!(one.iter().any(|point| point.run == 1) && one.iter().any(|point| point.run == 0));
    }
}
