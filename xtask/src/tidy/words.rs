//! Words of the code: one word an idea, and the field's word where it has one. The glossary is in `CONTRIBUTING.md`.

use std::path::Path;

use crate::source;

/// What a name may be called instead, and where it may still be called so.
struct Word {
    name: &'static str,
    instead: &'static str,
    /// Folders or files in which the word means what the glossary says.
    except: &'static [&'static str],
}

const WORDS: &[Word] = &[
    Word { name: "take_in", instead: "download", except: &[] },
    Word { name: "take_up", instead: "reopen", except: &[] },
    Word { name: "carry_out", instead: "deploy", except: &[] },
    Word { name: "make_room", instead: "admit", except: &["crates/http", "server"] },
    Word { name: "complain", instead: "report_error", except: &[] },
    Word { name: "Desk", instead: "PendingQuestion", except: &[] },
    Word { name: "Canceller", instead: "CancelToken", except: &[] },
    Word { name: "Attended", instead: "Standalone", except: &[] },
    Word { name: "Unattended", instead: "Managed", except: &[] },
    Word { name: "Doors", instead: "a name that says what it holds", except: &[] },
    Word { name: "Bender", instead: "a name that says what it changes", except: &[] },
    Word {
        name: "Verdict",
        instead: "a name of its own: a verdict is the bootloader's",
        except: &["crates/client-core/src/boot"],
    },
    Word { name: "Manager", instead: "a name that says what it does", except: &[] },
    Word { name: "Helper", instead: "a name that says what it does", except: &[] },
    Word { name: "utils", instead: "a room with a name", except: &[] },
];

/// Keywords that a declared name follows.
const DECLARES: [&str; 7] = ["fn", "struct", "enum", "trait", "type", "mod", "const"];

/// Names that are declared in the file at `path` and that the house calls otherwise. Tests may play with words.
pub fn findings(path: &Path, text: &str) -> Vec<String> {
    let name = path.to_string_lossy();
    if name.contains("tests/") || name.starts_with("xtask/") {
        return Vec::new();
    }
    let code = source::without_tests(&source::code_only(text));
    let tokens = source::tokens(&code);
    let mut findings = Vec::new();
    for pair in tokens.windows(2).filter(|pair| DECLARES.contains(&pair[0].1)) {
        let (line, declared) = pair[1];
        let known = WORDS.iter().find(|word| word.name == declared);
        if let Some(word) = known.filter(|word| !word.except.iter().any(|place| name.starts_with(place))) {
            findings.push(format!("{name}:{line}: {declared} is called {} here", word.instead));
        }
    }
    // A value that can be copied is one thing, one of two copies of a record another.
    for triple in tokens.windows(2).filter(|pair| pair[0].1 == "enum" && pair[1].1 == "Copy") {
        findings.push(format!("{name}:{}: Copy is a trait: name what it is a copy of", triple[1].0));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, complaints: usize) {
        assert_eq!(findings(Path::new(path), text).len(), complaints, "{text}");
    }

    #[test]
    fn a_word_that_the_house_does_not_use_is_reported_where_it_is_declared() {
        check("daemon/src/a.rs", "fn take_in() {}", 1);
        check("daemon/src/a.rs", "fn f() { take_in() } // fn take_in", 0);
        check("daemon/src/a.rs", "enum Copy { A }", 1);
        check("daemon/src/a.rs", "struct Verdict;", 1);
        check("crates/client-core/src/boot/state.rs", "enum Verdict { A }", 0);
    }
}
