//! A strict reader of JSON for the models: what they are sent must be plain, and they share no code with the client.

/// A JSON value. Objects keep their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it was written.
    Number(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads `bytes`.
    ///
    /// # Errors
    /// When it is not JSON, says what an object has twice, or has anything behind its end but white space.
    pub fn parse(bytes: &[u8]) -> Result<Json, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let mut reader = Reader { rest: text };
        let value = reader.value()?;
        reader.space();
        if reader.rest.is_empty() { Ok(value) } else { Err(format!("behind the end: {:?}", reader.rest)) }
    }

    /// The member of this name.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::List(_) => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => None,
        }
    }

    /// The items, if it is a list.
    pub fn list(&self) -> Option<&[Json]> {
        match self {
            Json::List(items) => Some(items),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::Object(_) => None,
        }
    }

    /// The names of the members, in order.
    pub fn keys(&self) -> Vec<&str> {
        match self {
            Json::Object(members) => members.iter().map(|(key, _)| key.as_str()).collect(),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::List(_) => Vec::new(),
        }
    }
}

/// `text` as a JSON string.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn takes(&mut self, token: &str) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn wants(&mut self, token: &str) -> Result<(), String> {
        if self.takes(token) { Ok(()) } else { Err(format!("{token} is missing before {:?}", self.rest)) }
    }

    fn value(&mut self) -> Result<Json, String> {
        if self.takes("{") {
            return self.object();
        }
        if self.takes("[") {
            let mut items = Vec::new();
            while !self.takes("]") {
                if !items.is_empty() {
                    self.wants(",")?;
                }
                items.push(self.value()?);
            }
            return Ok(Json::List(items));
        }
        if self.takes("\"") {
            return self.string().map(Json::Text);
        }
        let words = [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))];
        if let Some((_, value)) = words.into_iter().find(|(word, _)| self.takes(word)) {
            return Ok(value);
        }
        let digits = self.rest.trim_start_matches(|c: char| c.is_ascii_digit() || "+-.eE".contains(c));
        let number = &self.rest[..self.rest.len() - digits.len()];
        number.parse::<f64>().map_err(|_| format!("no value: {:?}", self.rest))?;
        let number = number.to_owned();
        self.rest = digits;
        Ok(Json::Number(number))
    }

    fn object(&mut self) -> Result<Json, String> {
        let mut members: Vec<(String, Json)> = Vec::new();
        while !self.takes("}") {
            if !members.is_empty() {
                self.wants(",")?;
            }
            self.wants("\"")?;
            let key = self.string()?;
            if members.iter().any(|(other, _)| *other == key) {
                return Err(format!("{key} twice"));
            }
            self.wants(":")?;
            let value = self.value()?;
            members.push((key, value));
        }
        Ok(Json::Object(members))
    }

    /// What is behind the opening quote.
    fn string(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next().ok_or("a string without an end")? {
                '"' => break,
                '\\' => match chars.next().ok_or("a string without an end")? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    'b' => text.push('\u{8}'),
                    'f' => text.push('\u{c}'),
                    'u' => {
                        let digits: String = chars.by_ref().take(4).collect();
                        let code = u32::from_str_radix(&digits, 16).map_err(|error| error.to_string())?;
                        text.push(char::from_u32(code).ok_or("a surrogate")?);
                    }
                    c @ ('"' | '\\' | '/') => text.push(c),
                    c => return Err(format!("\\{c} in a string")),
                },
                c if c < ' ' => return Err("a control character in a string".to_owned()),
                c => text.push(c),
            }
        }
        self.rest = chars.as_str();
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_read_back() {
        let text = "a\"b\\c\n\u{1}ü";
        assert_eq!(Json::parse(quoted(text).as_bytes()), Ok(Json::Text(text.into())));
    }

    #[test]
    fn only_json_is_read() {
        let read = Json::parse(b" {\"a\":[1,-2.5e3,true,null],\"b\":{}} \n").unwrap();
        assert_eq!(read.keys(), ["a", "b"]);
        assert_eq!(read.get("a").unwrap().list().unwrap().len(), 4);
        for bad in ["", "{", "[1,]", "[,1]", "{\"a\":1,\"a\":2}", "\"", "\"\\x\"", "1 2", "{a:1}", "nul"] {
            assert!(Json::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
