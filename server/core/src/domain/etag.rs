//! Entity tags, as `If-Match` and `If-None-Match` name them.
//!
//! A proxy that compresses an answer makes the tag of it weak (`W/"…"`). It is compared as if it were not: a tag here says what people
//! have seen, and not in which bytes.

/// Whether a header names something: any (`*`), or one whose name, without its quotes, is that of it.
pub(crate) fn names(header: &str, is_it: impl Fn(&str) -> bool) -> bool {
    header.split(',').map(str::trim).any(|one| one == "*" || is_it(name(one)))
}

fn name(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
}

/// Whether the name of a tag begins with a part: `PART` or `PART-REST`.
pub(crate) fn has_mark(name: &str, mark: &str) -> bool {
    name.split('-').next() == Some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_a_list_of_tags() {
        for (header, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("\"b\",W/\"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("W/\"b\"", false),
            ("", false),
        ] {
            assert_eq!(names(header, |name| name == "a"), expected, "{header}");
        }
        assert!(names("W/\"a-b\"", |name| has_mark(name, "a")));
        assert!(!names("\"ab-c\"", |name| has_mark(name, "a")));
    }
}
