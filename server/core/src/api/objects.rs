//! JSON in which a struct is an object. Left alone, serde takes a list for a struct as well, field after field: whoever sends
//! one has made a mistake, and has to hear of it.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde_json::Value;

use crate::domain::json::{DEPTH, is_deep};

/// Reads JSON in which every struct is an object, also inside of others.
///
/// # Errors
/// It is something else.
pub(super) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    if is_deep(bytes) {
        return Err(serde_json::Error::custom(format_args!("nested more than {DEPTH} times")));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = T::deserialize(Objects(&mut json))?;
    json.end()?;
    Ok(value)
}

/// Reads a value in the same way.
///
/// # Errors
/// It is something else.
pub(super) fn from_value<T: DeserializeOwned>(value: Value) -> serde_json::Result<T> {
    T::deserialize(Objects(value))
}

/// Around whatever takes part in reading, so that what is inside of it is read in the same way.
struct Objects<T>(T);

/// Asks for something as it was asked for.
macro_rules! ask {
    ($($ask:ident($($argument:ident: $kind:ty),*)),* $(,)?) => {$(
        fn $ask<V: Visitor<'de>>(self, $($argument: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$ask($($argument,)* Objects(visitor))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Objects<D> {
    type Error = D::Error;

    /// This is what all of it is for.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Objects(visitor))
    }

    ask! {
        deserialize_any(), deserialize_bool(), deserialize_i8(), deserialize_i16(), deserialize_i32(), deserialize_i64(),
        deserialize_i128(), deserialize_u8(), deserialize_u16(), deserialize_u32(), deserialize_u64(), deserialize_u128(),
        deserialize_f32(), deserialize_f64(), deserialize_char(), deserialize_str(), deserialize_string(),
        deserialize_bytes(), deserialize_byte_buf(), deserialize_option(), deserialize_unit(), deserialize_seq(),
        deserialize_map(), deserialize_identifier(), deserialize_ignored_any(),
        deserialize_unit_struct(name: &'static str),
        deserialize_newtype_struct(name: &'static str),
        deserialize_tuple(len: usize),
        deserialize_tuple_struct(name: &'static str, len: usize),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]),
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

/// Hands a value on that has nothing inside of it.
macro_rules! visit {
    ($($visit:ident: $kind:ty),* $(,)?) => {$(
        fn $visit<E: Error>(self, value: $kind) -> Result<V::Value, E> {
            self.0.$visit(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Objects<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    visit! {
        visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128, visit_f64: f64,
        visit_str: &str, visit_borrowed_str: &'de str, visit_string: String, visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Objects(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Objects(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Objects(inner))
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Objects(inner))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Objects(inner))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Objects<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Objects(inner))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Objects<A> {
    type Error = A::Error;
    type Variant = Objects<A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Objects<A::Variant>), A::Error> {
        let (value, variant) = self.0.variant_seed(seed)?;
        Ok((value, Objects(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.0.newtype_variant_seed(Objects(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Objects(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Objects(visitor))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_lies_too_deep_is_refused_before_it_is_read() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(super::from_slice::<serde_json::Value>(nested(32).as_bytes()).is_ok());
        for deep in [nested(33), format!("{{\"a\":{}}}", nested(32)), "[".repeat(1000)] {
            let said = super::from_slice::<serde_json::Value>(deep.as_bytes()).unwrap_err().to_string();
            assert!(said.contains("nested more than 32 times"), "{said}");
        }
        let text = format!("[\"\\\"{}\"]", "[".repeat(100));
        assert!(super::from_slice::<serde_json::Value>(text.as_bytes()).is_ok(), "brackets of a text");
    }

    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        a: String,
        b: Option<u64>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        one: Inner,
        #[serde(default)]
        maybe: Option<Inner>,
        #[serde(default)]
        many: Vec<Inner>,
        #[serde(default)]
        named: BTreeMap<String, Inner>,
        #[serde(default)]
        any: Value,
    }

    fn is_read<T: DeserializeOwned>(json: &Value) -> bool {
        let is_read = from_slice::<T>(json.to_string().as_bytes()).is_ok();
        assert_eq!(from_value::<T>(json.clone()).is_ok(), is_read);
        is_read
    }

    #[test]
    fn a_list_is_no_struct_wherever_it_stands() {
        let (object, list) = (json!({ "a": "x", "b": 1 }), json!(["x", 1]));
        assert!(is_read::<Inner>(&object) && !is_read::<Inner>(&list));
        let outer = |name: &str, value: Value| {
            let mut outer = json!({ "one": object.clone() });
            outer[name] = value;
            outer
        };
        for (name, of) in [
            ("one", (|inner| inner) as fn(Value) -> Value),
            ("maybe", |inner| inner),
            ("many", |inner| json!([inner])),
            ("named", |inner| json!({ "n": inner })),
        ] {
            assert!(is_read::<Outer>(&outer(name, of(object.clone()))), "{name}");
            assert!(!is_read::<Outer>(&outer(name, of(list.clone()))), "{name}");
        }
        let error = from_slice::<Inner>(b"[\"x\", 1]").unwrap_err().to_string();
        assert!(error.starts_with("invalid type: sequence, expected struct Inner"), "{error}");
    }

    #[test]
    fn what_is_no_struct_is_read_as_it_was() {
        let any = json!([1, -1, 1.5, "x", null, true, { "a": ["x", 1] }]);
        assert_eq!(from_slice::<Value>(any.to_string().as_bytes()).unwrap(), any);
        assert!(is_read::<Vec<Inner>>(&json!([{ "a": "x" }])) && is_read::<(String, u64)>(&json!(["x", 1])));
        assert!(is_read::<Outer>(&json!({ "one": { "a": "x" }, "any": ["x", 1] })));
        assert!(from_slice::<Value>(b"{} x").is_err() && from_slice::<Value>(b"").is_err());
    }
}
