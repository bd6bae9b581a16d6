//! Walks through everything that may happen: each thing that is not determined calls
//! [`choose`](Choices::choose), and the walk tries every answer.
//!
//! The answers of one walk, in order, are its *replay id* (`0.2.1`): the next walk is the next id in
//! lexicographic order. Where there are too many, the same calls are answered by a seeded generator instead.
//! Either way the recorded id leads back to exactly one case. Nothing here knows what is being chosen.

use std::fmt;
use std::str::FromStr;

/// The answers of one walk, and where to go next.
#[derive(Debug, Clone)]
pub struct Choices {
    answers: Answers,
    taken: Vec<Taken>,
    position: usize,
    /// The first position at which this walk differs from the one before.
    first_new: usize,
}

#[derive(Debug, Clone)]
enum Answers {
    /// Those of `taken`, then always the first.
    Walk,
    /// Drawn.
    Random(Generator),
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    answer: u32,
    of: u32,
}

impl Choices {
    /// The first walk of an exhaustive enumeration.
    pub fn exhaustive() -> Choices {
        Choices { answers: Answers::Walk, taken: Vec::new(), position: 0, first_new: 0 }
    }

    /// One walk with answers drawn from `seed`.
    pub fn random(seed: u64) -> Choices {
        Choices { answers: Answers::Random(Generator::new(seed)), ..Choices::exhaustive() }
    }

    /// The walk with this id.
    pub fn replay(id: &ReplayId) -> Choices {
        let taken = id.0.iter().map(|&answer| Taken { answer, of: u32::MAX }).collect();
        Choices { taken, ..Choices::exhaustive() }
    }

    /// One of `0..n`. With one thing to choose from nothing is recorded.
    ///
    /// # Panics
    /// When `n` is 0, or a replayed id does not fit the code it is replayed with: an error of the test.
    pub fn choose(&mut self, n: usize) -> usize {
        self.answer(n, |generator| generator.below(n))
    }

    /// As [`choose`](Choices::choose), for things that happen in few of many places, such as a power cut: a
    /// random walk answers 0 most of the time, so that it gets further than the first place.
    ///
    /// # Panics
    /// As [`choose`](Choices::choose).
    pub fn choose_rarely(&mut self, n: usize) -> usize {
        self.answer(n, |generator| if generator.below(12) == 0 { generator.below(n) } else { 0 })
    }

    fn answer(&mut self, n: usize, draw: impl FnOnce(&mut Generator) -> usize) -> usize {
        assert!(n > 0, "there must be something to choose from");
        if n == 1 {
            return 0;
        }
        let of = u32::try_from(n).expect("fewer than 2^32 things to choose from");
        let answer = match (&mut self.answers, self.taken.get_mut(self.position)) {
            (Answers::Walk, Some(taken)) => {
                assert!(taken.answer < of, "replay id does not fit: {} of {of}", taken.answer);
                taken.of = of;
                taken.answer as usize
            }
            (Answers::Walk, None) => {
                self.taken.push(Taken { answer: 0, of });
                0
            }
            (Answers::Random(generator), _) => {
                let answer = draw(generator);
                self.taken.push(Taken { answer: u32::try_from(answer).unwrap_or(0), of });
                answer
            }
        };
        self.position += 1;
        answer
    }

    /// Turns to the next walk. `false` when this was the last one.
    pub fn advance(&mut self) -> bool {
        self.taken.truncate(self.position);
        self.position = 0;
        while let Some(last) = self.taken.last_mut() {
            if last.answer + 1 < last.of {
                last.answer += 1;
                self.first_new = self.taken.len() - 1;
                return true;
            }
            self.taken.pop();
        }
        false
    }

    /// How many choices this walk has made so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Whether the walk up to here was not part of the walk before.
    pub fn is_new(&self) -> bool {
        self.position > self.first_new
    }

    /// The id of this walk.
    pub fn id(&self) -> ReplayId {
        ReplayId(self.taken[..self.position].iter().map(|taken| taken.answer).collect())
    }
}

/// Leads back to one case. Runs of three or more zeros are written `0*12`, zeros at the end not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayId(Vec<u32>);

impl ReplayId {
    /// The walk from the very beginning.
    pub(crate) fn start() -> ReplayId {
        ReplayId(Vec::new())
    }

    /// This walk, and then that one.
    pub(crate) fn then(&self, next: &ReplayId) -> ReplayId {
        ReplayId([&self.0[..], &next.0].concat())
    }
}

impl fmt::Display for ReplayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().rposition(|&answer| answer != 0).map_or(0, |last| last + 1);
        let mut rest = &self.0[..used];
        let mut separator = "";
        if rest.is_empty() {
            return f.write_str("0");
        }
        while let Some(&first) = rest.first() {
            let zeros = rest.iter().take_while(|&&answer| answer == 0).count();
            let taken = if zeros >= 3 {
                write!(f, "{separator}0*{zeros}")?;
                zeros
            } else {
                write!(f, "{separator}{first}")?;
                1
            };
            rest = &rest[taken..];
            separator = ".";
        }
        Ok(())
    }
}

impl FromStr for ReplayId {
    type Err = String;

    fn from_str(text: &str) -> Result<ReplayId, String> {
        let mut answers = Vec::new();
        for part in text.split('.') {
            let bad = |_| format!("{part:?} in replay id {text:?} is not a number");
            match part.split_once('*') {
                Some((answer, times)) => {
                    let times: usize = times.parse().map_err(bad)?;
                    let answer: u32 = answer.parse().map_err(bad)?;
                    answers.extend(std::iter::repeat_n(answer, times));
                }
                None => answers.push(part.parse::<u32>().map_err(bad)?),
            }
        }
        Ok(ReplayId(answers))
    }
}

/// Where drawing starts in this run: `ROTA_SEED`, up to 16 hexadecimal digits, else 1.
///
/// `cargo xtask test` takes it from the commit, so that a commit always draws the same cases and the next one others.
///
/// # Panics
/// When `ROTA_SEED` is no such number.
pub fn seed() -> u64 {
    let Ok(text) = std::env::var("ROTA_SEED") else { return 1 };
    u64::from_str_radix(&text, 16).unwrap_or_else(|error| panic!("ROTA_SEED={text}: {error}"))
}

/// How many cases are drawn or enumerated where that is a matter of time: ten times as many in the long run of
/// `cargo xtask test --all`, which sets `ROTA_LONG`.
pub fn so_many(cases: u64) -> u64 {
    if std::env::var_os("ROTA_LONG").is_some() { cases * 10 } else { cases }
}

/// A small generator of pseudo-random numbers (SplitMix64). Good enough to pick cases, for nothing else.
#[derive(Debug, Clone)]
pub struct Generator(u64);

impl Generator {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Generator {
        Generator(seed)
    }

    /// The next number.
    pub fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// One of `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next_word() % n.max(1) as u64).unwrap_or(0)
    }
}

fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A fast hash for recognising states. Not meant to withstand anybody.
#[derive(Debug, Clone)]
pub(crate) struct Mixer(u64);

impl Mixer {
    pub(crate) fn new() -> Mixer {
        Mixer(0x51_7c_c1_b7_27_22_0a_95)
    }

    pub(crate) fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        for &byte in chunks.remainder() {
            self.word(u64::from(byte));
        }
        self.word(bytes.len() as u64);
    }

    pub(crate) fn finish(&self) -> u64 {
        mix(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every walk through `body`, as ids.
    fn walks(body: impl Fn(&mut Choices)) -> Vec<String> {
        let mut choices = Choices::exhaustive();
        let mut ids = Vec::new();
        loop {
            body(&mut choices);
            ids.push(format!("{:?}", choices.id().0));
            if !choices.advance() {
                return ids;
            }
        }
    }

    #[test]
    fn every_answer_is_taken_once_in_order() {
        let ids = walks(|choices| {
            if choices.choose(2) == 1 {
                choices.choose(3);
            }
        });
        assert_eq!(ids, ["[0]", "[1, 0]", "[1, 1]", "[1, 2]"]);
    }

    #[test]
    fn a_choice_of_one_is_not_recorded() {
        assert_eq!(walks(|choices| assert_eq!(choices.choose(1), 0)), ["[]"]);
    }

    #[test]
    fn only_what_differs_from_the_walk_before_is_new() {
        let mut choices = Choices::exhaustive();
        choices.choose(2);
        assert!(choices.is_new());
        choices.choose(2);
        assert!(choices.advance());
        choices.choose(2);
        assert!(!choices.is_new());
        choices.choose(2);
        assert!(choices.is_new());
    }

    #[test]
    fn a_random_walk_is_replayed_by_its_id() {
        let walk = |choices: &mut Choices| (0..50).map(|n| choices.choose(n % 5 + 2)).collect::<Vec<_>>();
        let mut random = Choices::random(7);
        let seen = walk(&mut random);
        let id: ReplayId = random.id().to_string().parse().unwrap();
        assert_eq!(walk(&mut Choices::replay(&id)), seen);
        assert_eq!(walk(&mut Choices::random(7)), seen);
        assert_ne!(walk(&mut Choices::random(8)), seen);
    }

    #[test]
    fn ids_are_short_and_read_back() {
        for (answers, text) in [
            (vec![], "0"),
            (vec![0, 2, 1], "0.2.1"),
            (vec![0, 0, 0, 0, 1, 0, 0], "0*4.1"),
            (vec![3, 0, 0, 1], "3.0.0.1"),
        ] {
            assert_eq!(ReplayId(answers.clone()).to_string(), text);
            let read: ReplayId = text.parse().unwrap();
            let used = answers.iter().rposition(|&answer| answer != 0).map_or(0, |last| last + 1);
            assert_eq!(read.0[..used], answers[..used]);
        }
        assert!("0.x".parse::<ReplayId>().is_err());
    }
}
