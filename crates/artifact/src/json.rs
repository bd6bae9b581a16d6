//! Strict JSON for signed documents: bounded nesting, no key twice, and keys found whatever their letter case.
//!
//! The same document must mean the same to every reader. Readers have differed on duplicate keys (first or last wins)
//! and on letter case (both existing clients ignore it), so a document where that matters is refused.

use crate::error::ArtifactError;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;

/// When two keys of one object are the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// When they differ in letter case at most: documents whose keys are matched that way.
    FoldCase,
    /// When they are equal: documents that are passed on and not interpreted.
    Exact,
}

/// Checks a document without building anything from it, so that memory does not follow from its nesting.
pub(crate) fn validate<'a>(
    entry: &str,
    bytes: &'a [u8],
    depth: usize,
    keys: Keys,
) -> Result<&'a str, ArtifactError> {
    let fail = |problem: String| ArtifactError::Json { entry: entry.to_owned(), problem };
    let text = std::str::from_utf8(bytes).map_err(|_| fail("not UTF-8".to_owned()))?;
    let mut parser = serde_json::Deserializer::from_str(text);
    Check { depth, keys }.deserialize(&mut parser).map_err(|error| fail(error.to_string()))?;
    parser.end().map_err(|error| fail(error.to_string()))?;
    Ok(text)
}

/// Parses a document that has to be an object.
pub(crate) fn parse_object<'a>(
    entry: &'a str,
    bytes: &[u8],
    depth: usize,
) -> Result<Object<'a>, ArtifactError> {
    let text = validate(entry, bytes, depth, Keys::FoldCase)?;
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(Object { entry, fields }),
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(ArtifactError::Json { entry: entry.to_owned(), problem: "not an object".to_owned() })
        }
        Err(error) => Err(ArtifactError::Json { entry: entry.to_owned(), problem: error.to_string() }),
    }
}

/// A JSON object and the name of the document it is in.
pub(crate) struct Object<'a> {
    entry: &'a str,
    fields: Map<String, Value>,
}

impl<'a> Object<'a> {
    /// An object that was found inside `outer`.
    pub(crate) fn nested(outer: &Object<'a>, fields: &Map<String, Value>) -> Object<'a> {
        Object { entry: outer.entry, fields: fields.clone() }
    }

    /// The field called `name` in any letter case. There is at most one, as the document was validated.
    pub(crate) fn find(&self, name: &str) -> Option<&Value> {
        let wanted = fold(name);
        self.fields.iter().find(|(key, _)| fold(key) == wanted).map(|(_, value)| value)
    }

    /// Like [`Object::find`], with `null` the same as absent.
    fn present(&self, name: &str) -> Option<&Value> {
        self.find(name).filter(|value| !value.is_null())
    }

    pub(crate) fn object(&self, name: &'static str) -> Result<Option<Object<'a>>, ArtifactError> {
        let Some(value) = self.present(name) else { return Ok(None) };
        let fields = value.as_object().ok_or_else(|| self.wrong(name, "not an object"))?;
        Ok(Some(Object::nested(self, fields)))
    }

    pub(crate) fn string(&self, name: &'static str) -> Result<Option<String>, ArtifactError> {
        let Some(value) = self.present(name) else { return Ok(None) };
        value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| self.wrong(name, "not a string"))
    }

    pub(crate) fn strings(&self, name: &'static str) -> Result<Option<Vec<String>>, ArtifactError> {
        let Some(value) = self.present(name) else { return Ok(None) };
        strings_of(value).map(Some).ok_or_else(|| self.wrong(name, "not a list of strings"))
    }

    pub(crate) fn array(&self, name: &'static str) -> Result<&[Value], ArtifactError> {
        let value = self.present(name).ok_or_else(|| self.wrong(name, "missing"))?;
        value.as_array().map(Vec::as_slice).ok_or_else(|| self.wrong(name, "not a list"))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.fields.iter()
    }

    pub(crate) fn wrong(&self, field: &'static str, problem: impl Into<String>) -> ArtifactError {
        ArtifactError::Field { entry: self.entry.to_owned(), field, problem: problem.into() }
    }
}

/// The strings of a list that holds nothing else.
pub(crate) fn strings_of(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// One form for all spellings of a key. Upper case first, as some letters have only one of the two.
fn fold(key: &str) -> String {
    key.to_uppercase().to_lowercase()
}

#[derive(Clone, Copy)]
struct Check {
    depth: usize,
    keys: Keys,
}

impl Check {
    fn deeper<E: Error>(self) -> Result<Check, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Check { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut seen = BTreeSet::new();
        while let Some(key) = fields.next_key::<String>()? {
            let form = match self.keys {
                Keys::FoldCase => fold(&key),
                Keys::Exact => key.clone(),
            };
            if !seen.insert(form) {
                // A key may be as long as the document; a message may not.
                let start: String = key.chars().take(80).collect();
                return Err(A::Error::custom(format!("the key {start:?} is there twice")));
            }
            fields.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, keys: Keys) -> Result<(), String> {
        validate("doc", text.as_bytes(), 4, keys).map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn ordinary_documents_pass() {
        for text in
            ["{}", "null", "1", "-1.5e3", "\"x\"", "[1,[2,[3,[]]]]", "{\"a\":{\"a\":{\"b\":[1]}}}", " [ ] "]
        {
            assert_eq!(check(text, Keys::FoldCase), Ok(()), "{text}");
        }
    }

    #[test]
    fn nesting_at_the_limit_passes_and_one_past_it_is_refused() {
        assert_eq!(check("[[[[]]]]", Keys::Exact), Ok(()));
        assert!(check("[[[[[]]]]]", Keys::Exact).unwrap_err().contains("nested too deeply"));
        assert!(check("{\"a\":[{\"a\":[{}]}]}", Keys::Exact).is_err());
        assert!(check(&"[".repeat(100_000), Keys::Exact).is_err());
    }

    #[test]
    fn a_key_twice_is_refused_at_any_depth_and_in_any_letter_case() {
        for text in ["{\"a\":1,\"a\":1}", "[{\"x\":{\"a\":1,\"b\":2,\"a\":3}}]", "{\"\\u0061\":1,\"a\":2}"] {
            assert!(check(text, Keys::Exact).unwrap_err().contains("twice"), "{text}");
        }
        for text in ["{\"type\":1,\"Type\":2}", "{\"k\":1,\"\u{212a}\":2}", "{\"s\":1,\"\u{17f}\":2}"] {
            assert!(check(text, Keys::FoldCase).unwrap_err().contains("twice"), "{text}");
            assert_eq!(check(text, Keys::Exact), Ok(()), "{text}");
        }
    }

    #[test]
    fn malformed_documents_are_refused() {
        for text in [
            "",
            "{",
            "{}x",
            "{} {}",
            "{'a':1}",
            "{\"a\"}",
            "[1,]",
            "nul",
            "01",
            "1e999",
            "\"\\ud800\"",
            "\"\n\"",
        ] {
            assert!(check(text, Keys::Exact).is_err(), "{text}");
        }
        assert!(validate("doc", b"\"\xff\"", 4, Keys::Exact).is_err());
    }
}
