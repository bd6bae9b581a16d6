//! Rust source with its comments and literals blanked out, so that a rule sees code alone. Not a parser.

/// `source` with every comment, string and character literal replaced by spaces. Lines stay where they are.
pub fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at).unwrap_or(at);
        if end > at {
            code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            code.push(chars[at]);
            at += 1;
        }
    }
    code
}

/// Where the comment or literal that starts at `at` ends, if one does.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let rest = &chars[at..];
    let inside_word = at > 0 && is_word(chars[at - 1]);
    match rest {
        ['/', '/', ..] => Some(at + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())),
        ['/', '*', ..] => Some(block_comment_end(chars, at)),
        ['"', ..] => Some(quoted_end(chars, at + 1, '"')),
        ['r', '"' | '#', ..] if !inside_word => raw_string_end(chars, at + 1),
        ['b', 'r', '"' | '#', ..] if !inside_word => raw_string_end(chars, at + 2),
        // A lifetime has no closing quote after one character.
        ['\'', '\\', ..] => Some(quoted_end(chars, at + 1, '\'')),
        ['\'', _, '\'', ..] => Some(at + 3),
        _ => None,
    }
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match chars[at..] {
            ['/', '*', ..] => {
                depth += 1;
                at += 2;
            }
            ['*', '/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `None` when what looks like a raw string is a raw identifier.
fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + hashes) != Some(&'"') {
        return None;
    }
    let mut at = start + hashes + 1;
    while at < chars.len() {
        if chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(at)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The number of the line on which the module of tests begins, which comes last; past every line when there is none.
pub fn first_line_of_tests(code: &str) -> usize {
    let lines: Vec<&str> = code.lines().collect();
    let begins = |at: &usize| {
        let below = lines[at + 1..].iter().take(2);
        lines[*at].starts_with("#[cfg(test)]") && below.into_iter().any(|line| line.starts_with("mod tests"))
    };
    (0..lines.len()).find(begins).map_or(usize::MAX, |index| index + 1)
}

/// `code` up to its module of tests.
pub fn without_tests(code: &str) -> String {
    let tests = first_line_of_tests(code);
    code.lines().take(tests - 1).map(|line| format!("{line}\n")).collect()
}

/// Where `word` stands in `line` on its own, not as a part of a longer name.
pub fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word))
}

/// The words and single signs of code that went through [`code_only`], with the number of their line.
pub fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = rest
                .find(|c| !is_word(c))
                .filter(|length| *length > 0)
                .unwrap_or_else(|| if is_word(first) { rest.len() } else { first.len_utf8() });
            found.push((index + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, code: &str) {
        assert_eq!(code_only(source).split_whitespace().collect::<Vec<_>>().join(" "), code, "{source}");
    }

    #[test]
    fn comments_go() {
        check("a // unsafe\nb /* unsafe /* nested */ still */ c", "a b c");
        check("//! unsafe\n/// unsafe\na", "a");
    }

    #[test]
    fn literals_go_and_what_follows_stays() {
        check(r#"f("un\"safe", 'x', '\'', b'\\', "") + 1"#, "f( , , , b , ) + 1");
        check(r###"r#"a "quoted" unsafe"# + br"x" + b"y" + r"z\" + q"###, "+ + b + + q");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_stay() {
        check("fn f<'a>(x: &'a str) -> r#type", "fn f<'a>(x: &'a str) -> r#type");
    }

    #[test]
    fn lines_keep_their_numbers() {
        let code = code_only("\"two\nlines\" /* and\nthree */\nunsafe");
        assert_eq!(tokens(&code), [(4, "unsafe")]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("forbid(unsafe_code)", "unsafe"));
        assert_eq!(
            tokens("use crate::{a, b_c};").iter().map(|t| t.1).collect::<Vec<_>>().concat(),
            "usecrate::{a,b_c};"
        );
    }
}
