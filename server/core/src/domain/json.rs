//! How JSON from outside may look, wherever it comes from: the body of a request, or text inside of one.

use serde_json::Value;

/// How deep lists and objects may lie in each other. What is kept of them lies deeper in a record, which has to be read again:
/// the reader ends at 128.
pub(crate) const DEPTH: usize = 32;

/// Whether brackets outside of texts are nested more than [`DEPTH`] times. Whether they fit each other is seen by who reads.
pub(crate) fn is_deep(bytes: &[u8]) -> bool {
    let (mut depth, mut in_text, mut is_escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH {
            return true;
        }
    }
    false
}

/// Whether it is what an attribute may be: a value, or a list of one kind of values.
pub(crate) fn is_value(value: &Value) -> bool {
    let scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    match value {
        Value::Array(values) => {
            let kind = |value: &Value| std::mem::discriminant(value);
            values.iter().all(scalar) && values.windows(2).all(|pair| kind(&pair[0]) == kind(&pair[1]))
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) => true,
        Value::Null | Value::Object(_) => false,
    }
}

/// The one way in which a number is kept and looked for: 10.0 and 1e1 are 10, as whoever writes JSON means, and -0.0 is 0. Above
/// 2^53 a float stays one.
pub(crate) fn in_one_way(value: Value) -> Value {
    const EXACT: f64 = (1_u64 << 53) as f64;
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < EXACT);
            whole.map_or(Value::Number(number), |float| Value::from(float as i64))
        }
        Value::Array(values) => values.into_iter().map(in_one_way).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => value,
    }
}
