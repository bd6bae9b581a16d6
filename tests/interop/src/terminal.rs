//! The server's side of a session with `mender-connect`: the messages in the frames of its WebSocket, and
//! what a user does with them. How frames travel is the business of whoever has the WebSocket.
//!
//! A message is a map in MessagePack: `hdr` with `proto`, `typ`, `sid` and `props`, and `body`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

use std::time::{Duration, Instant};

/// Opens and closes sessions.
const CONTROL: u16 = 0xffff;
/// A shell.
const SHELL: u16 = 1;
/// Files.
const FILES: u16 = 2;
/// The command line of the client.
const CLIENT: u16 = 4;
/// Which session is meant; there is one.
const SESSION: &str = "11111111-1111-4111-8111-111111111111";
/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(180);
/// Long enough for the first prompt of a shell.
const PROMPT_PATIENCE: Duration = Duration::from_secs(15);
/// Shells until one speaks.
const SHELLS_MAX: u32 = 3;

/// A value of MessagePack, as far as it occurs.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// Keys and values, in order.
    Map(Vec<(Value, Value)>),
    /// An extension, such as a time.
    Extension(i8, Vec<u8>),
}

impl Value {
    /// A map with text keys.
    pub fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
        Value::Map(pairs.into_iter().map(|(key, value)| (Value::text(key), value)).collect())
    }

    /// Text.
    pub fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// The value of a key in a map.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Value::Map(pairs) = self else { return None };
        pairs.iter().find(|(known, _)| *known == Value::text(key)).map(|(_, value)| value)
    }

    /// The value as text.
    pub fn as_text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    /// The value as a number.
    pub fn as_int(&self) -> Option<i64> {
        if let Value::Int(number) = self { Some(*number) } else { None }
    }

    /// The bytes of the value.
    pub fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }

    fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Value::Nil => to.push(0xc0),
            Value::Bool(value) => to.push(0xc2 + u8::from(*value)),
            Value::Int(number) if (0..0x80).contains(number) => to.push(*number as u8),
            Value::Int(number) => {
                to.push(0xd3);
                to.extend_from_slice(&number.to_be_bytes());
            }
            Value::Text(text) => with_length(0xdb, text.as_bytes(), to),
            Value::Bytes(bytes) => with_length(0xc6, bytes, to),
            Value::List(items) => {
                length(0xdd, items.len(), to);
                items.iter().for_each(|item| item.encode(to));
            }
            Value::Map(pairs) => {
                length(0xdf, pairs.len(), to);
                for (key, value) in pairs {
                    key.encode(to);
                    value.encode(to);
                }
            }
            Value::Extension(kind, bytes) => {
                length(0xc9, bytes.len(), to);
                to.push(*kind as u8);
                to.extend_from_slice(bytes);
            }
        }
    }

    /// The value that `bytes` begin with, and the rest; `None` when they are no value.
    pub fn decode(bytes: &[u8]) -> Option<(Value, &[u8])> {
        let (&kind, rest) = bytes.split_first()?;
        let number = |bytes: usize| {
            let (digits, rest) = rest.split_at_checked(bytes)?;
            Some((digits.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)), rest))
        };
        let signed = |bytes: usize| {
            let (number, rest) = number(bytes)?;
            let unused = 64 - 8 * bytes as u32;
            Some((Value::Int((number as i64) << unused >> unused), rest))
        };
        let long = |bytes: usize| number(bytes).map(|(number, rest)| (number as usize, rest));
        match kind {
            0x00..=0x7f => Some((Value::Int(kind.into()), rest)),
            0xe0..=0xff => Some((Value::Int((kind as i8).into()), rest)),
            0xc0 => Some((Value::Nil, rest)),
            0xc2 | 0xc3 => Some((Value::Bool(kind == 0xc3), rest)),
            0xcc..=0xcf => number(1 << (kind - 0xcc)).map(|(n, rest)| (Value::Int(n as i64), rest)),
            0xd0..=0xd3 => signed(1 << (kind - 0xd0)),
            0xa0..=0xbf => text(usize::from(kind & 0x1f), rest),
            0xd9..=0xdb => long(1 << (kind - 0xd9)).and_then(|(length, rest)| text(length, rest)),
            0xc4..=0xc6 => long(1 << (kind - 0xc4)).and_then(|(length, rest)| {
                rest.split_at_checked(length).map(|(bytes, rest)| (Value::Bytes(bytes.to_vec()), rest))
            }),
            0x90..=0x9f => list(usize::from(kind & 0xf), rest),
            0xdc | 0xdd => long(2 << (kind - 0xdc)).and_then(|(length, rest)| list(length, rest)),
            0x80..=0x8f => map(usize::from(kind & 0xf), rest),
            0xde | 0xdf => long(2 << (kind - 0xde)).and_then(|(length, rest)| map(length, rest)),
            0xd4..=0xd8 => extension(1 << (kind - 0xd4), rest),
            0xc7..=0xc9 => long(1 << (kind - 0xc7)).and_then(|(length, rest)| extension(length, rest)),
            0xc1 | 0xca | 0xcb => None,
        }
    }
}

fn length(kind: u8, length: usize, to: &mut Vec<u8>) {
    to.push(kind);
    to.extend_from_slice(&(length as u32).to_be_bytes());
}

fn with_length(kind: u8, bytes: &[u8], to: &mut Vec<u8>) {
    length(kind, bytes.len(), to);
    to.extend_from_slice(bytes);
}

fn text(length: usize, rest: &[u8]) -> Option<(Value, &[u8])> {
    let (bytes, rest) = rest.split_at_checked(length)?;
    Some((Value::Text(String::from_utf8(bytes.to_vec()).ok()?), rest))
}

fn list(length: usize, mut rest: &[u8]) -> Option<(Value, &[u8])> {
    let mut items = Vec::new();
    for _ in 0..length {
        let (item, after) = Value::decode(rest)?;
        items.push(item);
        rest = after;
    }
    Some((Value::List(items), rest))
}

fn map(length: usize, rest: &[u8]) -> Option<(Value, &[u8])> {
    let (Value::List(items), rest) = list(2 * length, rest)? else { return None };
    let pairs = items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
    Some((Value::Map(pairs.collect()), rest))
}

fn extension(length: usize, rest: &[u8]) -> Option<(Value, &[u8])> {
    let (&kind, rest) = rest.split_first()?;
    let (bytes, rest) = rest.split_at_checked(length)?;
    Some((Value::Extension(kind as i8, bytes.to_vec()), rest))
}

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What it belongs to.
    pub proto: u16,
    /// What it is.
    pub kind: String,
    /// More about it.
    pub props: Value,
    /// Its content.
    pub body: Vec<u8>,
}

impl Message {
    fn encoded(&self) -> Vec<u8> {
        let header = Value::map([
            ("proto", Value::Int(self.proto.into())),
            ("typ", Value::text(&self.kind)),
            ("sid", Value::text(SESSION)),
            ("props", self.props.clone()),
        ]);
        Value::map([("hdr", header), ("body", Value::Bytes(self.body.clone()))]).encoded()
    }

    fn decode(bytes: &[u8]) -> Option<Message> {
        let (value, _) = Value::decode(bytes)?;
        let header = value.get("hdr")?;
        let body = if let Some(Value::Bytes(body)) = value.get("body") { body.clone() } else { Vec::new() };
        Some(Message {
            proto: header.get("proto")?.as_int()?.try_into().ok()?,
            kind: header.get("typ")?.as_text()?.to_owned(),
            props: header.get("props").cloned().unwrap_or(Value::Nil),
            body,
        })
    }
}

/// Whole binary frames from and to the device.
pub trait Frames {
    /// Sends one.
    fn send(&mut self, frame: &[u8]);

    /// The next one before `deadline`; `None` when there is none.
    fn receive(&mut self, deadline: Instant) -> Option<Vec<u8>>;
}

/// A session with one device.
pub struct Session<F> {
    frames: F,
}

impl<F: Frames> Session<F> {
    /// Opens it, and gives what the device offers.
    pub fn open(frames: F) -> (Session<F>, Vec<i64>) {
        let mut session = Session { frames };
        let body = Value::map([("versions", Value::List(vec![Value::Int(1)]))]).encoded();
        session.send(CONTROL, "open", &[], body);
        let accepted = session.expect(CONTROL, "accept");
        let (offer, _) = Value::decode(&accepted.body).unwrap();
        let Some(Value::List(offered)) = offer.get("protocols") else { panic!("{offer:?}") };
        (session, offered.iter().filter_map(Value::as_int).collect())
    }

    fn send(&mut self, proto: u16, kind: &str, props: &[(&str, Value)], body: Vec<u8>) {
        let user = [("user_id", Value::text("tester"))];
        let pairs = props.iter().chain(&user).map(|(key, value)| (Value::text(key), value.clone()));
        let props = Value::Map(pairs.collect());
        self.frames.send(&Message { proto, kind: kind.to_owned(), props, body }.encoded());
    }

    /// The next message of this kind; others are passed over.
    #[track_caller]
    fn expect(&mut self, proto: u16, kind: &str) -> Message {
        let others = match self.next(proto, kind, PATIENCE) {
            Ok(message) => return message,
            Err(others) => others,
        };
        panic!("no {proto}/{kind} came, but {others:#?}");
    }

    /// The same within `patience`; else what came instead.
    fn next(&mut self, proto: u16, kind: &str, patience: Duration) -> Result<Message, Vec<Option<Message>>> {
        let deadline = Instant::now() + patience;
        let mut others = Vec::new();
        while let Some(frame) = self.frames.receive(deadline) {
            match Message::decode(&frame) {
                Some(message) if (message.proto, &*message.kind) == (proto, kind) => return Ok(message),
                other => others.push(other),
            }
        }
        Err(others)
    }

    /// Starts a shell, and waits until it has said something.
    ///
    /// On a busy machine the shell of `mender-connect` 2.1 sometimes starts and stays mute, whatever is typed. It is
    /// ended then, and another one started.
    #[track_caller]
    pub fn start_shell(&mut self) {
        for _ in 0..SHELLS_MAX {
            let size = [("terminal_height", Value::Int(24)), ("terminal_width", Value::Int(80))];
            self.send(SHELL, "new", &size, Vec::new());
            let started = self.expect(SHELL, "new");
            assert_eq!(started.props.get("status"), Some(&Value::Int(1)), "{started:?}");
            if self.next(SHELL, "shell", PROMPT_PATIENCE).is_ok() {
                return;
            }
            self.stop_shell();
        }
        panic!("{SHELLS_MAX} shells were started, and none said anything");
    }

    /// Types `line` and waits until `expected` was printed.
    #[track_caller]
    pub fn type_line(&mut self, line: &str, expected: &str) {
        self.send(SHELL, "shell", &[], format!("{line}\n").into_bytes());
        let mut printed = String::new();
        while !printed.contains(expected) {
            printed += &String::from_utf8_lossy(&self.expect(SHELL, "shell").body);
        }
    }

    /// Ends the shell.
    pub fn stop_shell(&mut self) {
        self.send(SHELL, "stop", &[], Vec::new());
        self.expect(SHELL, "stop");
    }

    /// The content of a file of the device.
    #[track_caller]
    pub fn fetch_file(&mut self, path: &str) -> Vec<u8> {
        let body = Value::map([("path", Value::text(path))]).encoded();
        self.send(FILES, "get_file", &[], body);
        let mut content = Vec::new();
        loop {
            let chunk = self.expect(FILES, "file_chunk");
            let offset = chunk.props.get("offset").and_then(Value::as_int);
            assert_eq!(offset.unwrap_or(0), content.len() as i64, "{:?}", chunk.props);
            // An empty one is the end.
            if chunk.body.is_empty() {
                return content;
            }
            content.extend_from_slice(&chunk.body);
            self.send(FILES, "ack", &[("offset", Value::Int(content.len() as i64))], Vec::new());
        }
    }

    /// Has the device run `check-update` or `send-inventory`; the message when that fails.
    ///
    /// # Errors
    /// What the device says.
    pub fn run_client(&mut self, command: &str) -> Result<(), String> {
        self.send(CLIENT, command, &[], Vec::new());
        let done = self.expect(CLIENT, command);
        match done.props.get("status").and_then(Value::as_int) {
            Some(1) | None => Ok(()),
            Some(_) => Err(String::from_utf8_lossy(&done.body).into_owned()),
        }
    }

    /// Ends the session.
    pub fn close(mut self) {
        self.send(CONTROL, "close", &[], Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_were_written() {
        let value = Value::map([
            ("nil", Value::Nil),
            ("yes", Value::Bool(true)),
            ("small", Value::Int(5)),
            ("large", Value::Int(-70_000)),
            ("bytes", Value::Bytes(vec![1; 300])),
            ("list", Value::List(vec![Value::text("a"), Value::Extension(-1, vec![7; 4])])),
        ]);
        let mut bytes = value.encoded();
        bytes.push(9);
        assert_eq!(Value::decode(&bytes), Some((value, &[9][..])));
    }

    #[test]
    fn what_the_device_writes_is_understood() {
        // As it was seen on the wire.
        let frame =
            b"\x82\xa3hdr\x84\xa5proto\xcd\x00\x01\xa3typ\xa3new\xa3sid\xd9\x01x\xa5props\x81\xa6status\x01\
            \xa4body\xc4\rShell started";
        let message = Message::decode(frame).unwrap();
        assert_eq!((message.proto, &*message.kind, &*message.body), (1, "new", &b"Shell started"[..]));
        assert_eq!(message.props.get("status"), Some(&Value::Int(1)));
        assert_eq!(Message::decode(&frame[..frame.len() - 1]), None);
        assert_eq!(Value::decode(b"\xd1\xff\xfe"), Some((Value::Int(-2), &[][..])));
        assert_eq!(Value::decode(b"\xff"), Some((Value::Int(-1), &[][..])));
    }
}
