//! The options of a task: flags and options with a value, nothing else.

use crate::Outcome;

/// Options not asked for yet.
pub struct Options<'a> {
    rest: Vec<&'a str>,
}

impl<'a> Options<'a> {
    /// Takes the arguments after the task's name.
    pub fn new(arguments: &'a [String]) -> Options<'a> {
        Options { rest: arguments.iter().map(String::as_str).collect() }
    }

    /// Whether `name` is there.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.rest.len();
        self.rest.retain(|argument| *argument != name);
        self.rest.len() != before
    }

    /// The value after `name`.
    pub fn value(&mut self, name: &str) -> Outcome<Option<&'a str>> {
        let Some(at) = self.rest.iter().position(|argument| *argument == name) else { return Ok(None) };
        if at + 1 == self.rest.len() {
            return Err(format!("{name} needs a value"));
        }
        self.rest.remove(at);
        Ok(Some(self.rest.remove(at)))
    }

    /// The whole number after `name`, at least 1.
    pub fn count(&mut self, name: &str, default: u64) -> Outcome<u64> {
        match self.value(name)? {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(0) | Err(_) => Err(format!("{name} needs a whole number above 0, not {text:?}")),
                Ok(count) => Ok(count),
            },
        }
    }

    /// Everything that is left and is no option.
    pub fn words(&mut self) -> Vec<&'a str> {
        let (options, words) = self.rest.iter().partition(|argument| argument.starts_with('-'));
        self.rest = options;
        words
    }

    /// Refuses whatever is left.
    pub fn finish(self) -> Outcome {
        match self.rest.first() {
            None => Ok(()),
            Some(extra) => Err(format!("unexpected argument {extra:?}; see cargo xtask --help")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_values_are_taken_and_the_rest_is_refused() {
        let arguments = ["--write", "--runs", "5", "surprise"].map(String::from);
        let mut options = Options::new(&arguments);
        assert!(options.flag("--write"));
        assert!(!options.flag("--write"));
        assert_eq!(options.count("--runs", 3), Ok(5));
        assert_eq!(options.count("--mib", 256), Ok(256));
        assert!(options.finish().unwrap_err().contains("surprise"));
    }

    #[test]
    fn words_are_what_is_no_option() {
        let arguments = ["a", "--extra", "b"].map(String::from);
        let mut options = Options::new(&arguments);
        assert_eq!(options.words(), ["a", "b"]);
        assert!(options.finish().unwrap_err().contains("--extra"));
    }

    #[test]
    fn a_value_that_is_missing_or_zero_is_refused() {
        assert!(Options::new(&["--runs".to_owned()]).count("--runs", 3).is_err());
        assert!(Options::new(&["--runs".to_owned(), "0".to_owned()]).count("--runs", 3).is_err());
    }
}
