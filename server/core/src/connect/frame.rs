//! The frames of `mender-connect`: a map in MessagePack with `hdr` (`proto`, `typ`, `sid`, `props`) and `body`. Of a
//! frame that passes through only the header is looked at; everything else stays the bytes that came. What a message
//! carries is read only of those that are for this server.

use std::fmt;

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The bytes end within a value, or begin with a byte that no value has.
    Broken,
    /// It goes on behind its value.
    Trailing,
    /// A map or a text is something else.
    Unexpected,
    /// There is no header, or more than one.
    Header,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameError::Broken => "the frame is no MessagePack",
            FrameError::Trailing => "the frame goes on behind its end",
            FrameError::Unexpected => "the frame has a value of an unexpected type",
            FrameError::Header => "the frame has no header, or more than one",
        })
    }
}

/// One message, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Of which protocol.
    pub(crate) proto: u64,
    /// What it is there.
    pub(crate) kind: &'a str,
    /// The property `offset`.
    pub(crate) offset: Option<u64>,
    /// What it carries.
    pub(crate) body: &'a [u8],
}

/// A frame as a message.
pub(crate) fn message(frame: &[u8]) -> Result<Message<'_>, FrameError> {
    let (fields, others) = header(frame)?;
    let mut message = Message { proto: 0, kind: "", offset: None, body: &[] };
    for (key, value) in fields {
        match key {
            "proto" => message.proto = whole_number(value).ok_or(FrameError::Unexpected)?,
            "typ" => message.kind = whole_text(value)?,
            "props" if value != [NIL] => {
                for (_, value) in whole_map(value)?.into_iter().filter(|(key, _)| *key == "offset") {
                    message.offset = Some(whole_number(value).ok_or(FrameError::Unexpected)?);
                }
            }
            _ => {}
        }
    }
    for (_, value) in others.into_iter().filter(|(key, value)| *key == "body" && *value != [NIL]) {
        message.body = whole_bytes(value)?;
    }
    Ok(message)
}

/// A message with a body; of `offset` the property is made that chunks of files and their acknowledgements have.
pub(crate) fn written(
    proto: u16,
    kind: &str,
    session: &str,
    user: &str,
    offset: Option<u64>,
    body: &[u8],
) -> Vec<u8> {
    let mut to = Vec::with_capacity(body.len() + session.len() + user.len() + 96);
    write_map(&mut to, 2);
    write_text(&mut to, "hdr");
    write_map(&mut to, 4);
    write_text(&mut to, "proto");
    to.push(0xcd);
    to.extend_from_slice(&proto.to_be_bytes());
    write_text(&mut to, "typ");
    write_text(&mut to, kind);
    write_text(&mut to, "sid");
    write_text(&mut to, session);
    write_text(&mut to, "props");
    write_map(&mut to, 1 + usize::from(offset.is_some()));
    write_text(&mut to, "user_id");
    write_text(&mut to, user);
    if let Some(offset) = offset {
        write_text(&mut to, "offset");
        write_number(&mut to, offset);
    }
    write_text(&mut to, "body");
    write_bytes(&mut to, body);
    to
}

/// A value of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given<'a> {
    /// A text.
    Text(&'a str),
    /// A number.
    Number(u64),
    /// A list of numbers.
    Numbers(&'a [u64]),
}

/// The map that a body is.
pub(crate) fn map(pairs: &[(&str, Given<'_>)]) -> Vec<u8> {
    let mut to = Vec::new();
    write_map(&mut to, pairs.len());
    for (key, value) in pairs {
        write_text(&mut to, key);
        match value {
            Given::Text(text) => write_text(&mut to, text),
            Given::Number(number) => write_number(&mut to, *number),
            Given::Numbers(numbers) => {
                to.push(0xdc);
                to.extend_from_slice(&(numbers.len() as u16).to_be_bytes());
                numbers.iter().for_each(|number| write_number(&mut to, *number));
            }
        }
    }
    to
}

/// A body that is a map: what stands there under a name.
#[derive(Debug)]
pub(crate) struct Fields<'a>(Pairs<'a>);

impl<'a> Fields<'a> {
    /// The map that `body` is.
    pub(crate) fn of(body: &'a [u8]) -> Result<Fields<'a>, FrameError> {
        whole_map(body).map(Fields)
    }

    fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    /// The text of this name.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|value| whole_text(value).ok())
    }

    /// The number of this name, that is not negative.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(whole_number)
    }

    /// The numbers in the list of this name.
    pub(crate) fn numbers(&self, name: &str) -> Option<Vec<u64>> {
        let (&kind, rest) = self.get(name)?.split_first()?;
        let (count, mut rest) = match kind {
            0x90..=0x9f => (u64::from(kind & 0xf), rest),
            0xdc => number(2, rest).ok()?,
            0xdd => number(4, rest).ok()?,
            _ => return None,
        };
        let mut numbers = Vec::new();
        // The bytes end this, whatever the count.
        for _ in 0..count {
            let (one, after) = value(rest).ok()?;
            numbers.push(whole_number(one)?);
            rest = after;
        }
        Some(numbers)
    }
}

/// The session of a frame; empty when it has none.
pub(crate) fn session_of(frame: &[u8]) -> Result<&str, FrameError> {
    let mut session = "";
    for (key, value) in header(frame)?.0 {
        if key == "sid" && value != [NIL] {
            session = text(value)?.0;
        }
    }
    Ok(session)
}

/// The frame with another session and user in its header, whatever stood there.
pub(crate) fn addressed(frame: &[u8], session: &str, user: &str) -> Result<Vec<u8>, FrameError> {
    let (fields, others) = header(frame)?;
    let mut props = Vec::new();
    let mut kept = Vec::new();
    for (key, value) in fields {
        match key {
            // A second one would be for whoever reads the last.
            "sid" => {}
            "props" if value == [NIL] => {}
            "props" => props.extend(whole_map(value)?.into_iter().filter(|(key, _)| *key != "user_id")),
            _ => kept.push((key, value)),
        }
    }
    let mut to = Vec::with_capacity(frame.len() + session.len() + user.len() + 32);
    write_map(&mut to, others.len() + 1);
    write_text(&mut to, "hdr");
    write_map(&mut to, kept.len() + 2);
    write_pairs(&mut to, &kept);
    write_text(&mut to, "sid");
    write_text(&mut to, session);
    write_text(&mut to, "props");
    write_map(&mut to, props.len() + 1);
    write_pairs(&mut to, &props);
    write_text(&mut to, "user_id");
    write_text(&mut to, user);
    write_pairs(&mut to, &others);
    Ok(to)
}

/// A frame without a body.
pub(crate) fn command(proto: u8, kind: &str, session: &str, user: &str) -> Vec<u8> {
    let mut to = Vec::new();
    write_map(&mut to, 2);
    write_text(&mut to, "hdr");
    write_map(&mut to, 4);
    write_text(&mut to, "proto");
    to.push(proto);
    write_text(&mut to, "typ");
    write_text(&mut to, kind);
    write_text(&mut to, "sid");
    write_text(&mut to, session);
    write_text(&mut to, "props");
    write_map(&mut to, 1);
    write_text(&mut to, "user_id");
    write_text(&mut to, user);
    write_text(&mut to, "body");
    // No bytes.
    to.extend_from_slice(&[0xc4, 0]);
    to
}

const NIL: u8 = 0xc0;

/// Keys with the bytes of their values.
type Pairs<'a> = Vec<(&'a str, &'a [u8])>;

/// What is in the header, and what stands beside it.
fn header(frame: &[u8]) -> Result<(Pairs<'_>, Pairs<'_>), FrameError> {
    let (headers, others): (Pairs<'_>, Pairs<'_>) =
        whole_map(frame)?.into_iter().partition(|(key, _)| *key == "hdr");
    match headers.as_slice() {
        [(_, header)] => Ok((whole_map(header)?, others)),
        _ => Err(FrameError::Header),
    }
}

/// The pairs of a map that `bytes` are. Its keys have to be texts: other readers take bytes for a key as well, and
/// would find a session where this one saw none.
fn whole_map(bytes: &[u8]) -> Result<Pairs<'_>, FrameError> {
    let (&kind, rest) = bytes.split_first().ok_or(FrameError::Broken)?;
    let (count, mut rest) = match kind {
        0x80..=0x8f => (u64::from(kind & 0xf), rest),
        0xde => number(2, rest)?,
        0xdf => number(4, rest)?,
        _ => return Err(FrameError::Unexpected),
    };
    let mut pairs = Vec::new();
    // Each pair takes two bytes at least, so that the length of the frame ends this, whatever the count.
    for _ in 0..count {
        let (key, after) = text(rest)?;
        let (value, after) = value(after)?;
        pairs.push((key, value));
        rest = after;
    }
    if rest.is_empty() { Ok(pairs) } else { Err(FrameError::Trailing) }
}

/// The text that `bytes` begin with, and the rest.
fn text(bytes: &[u8]) -> Result<(&str, &[u8]), FrameError> {
    let (&kind, rest) = bytes.split_first().ok_or(FrameError::Broken)?;
    let (length, rest) = match kind {
        0xa0..=0xbf => (u64::from(kind & 0x1f), rest),
        0xd9 => number(1, rest)?,
        0xda => number(2, rest)?,
        0xdb => number(4, rest)?,
        _ => return Err(FrameError::Unexpected),
    };
    let (text, rest) = take(length, rest)?;
    Ok((std::str::from_utf8(text).map_err(|_| FrameError::Broken)?, rest))
}

/// The text that `bytes` are.
fn whole_text(bytes: &[u8]) -> Result<&str, FrameError> {
    let (text, rest) = text(bytes)?;
    if rest.is_empty() { Ok(text) } else { Err(FrameError::Trailing) }
}

/// The bytes that a value carries.
fn whole_bytes(value: &[u8]) -> Result<&[u8], FrameError> {
    let (&kind, rest) = value.split_first().ok_or(FrameError::Broken)?;
    let width = match kind {
        0xc4 => 1,
        0xc5 => 2,
        0xc6 => 4,
        _ => return Err(FrameError::Unexpected),
    };
    let (length, rest) = number(width, rest)?;
    let (bytes, rest) = take(length, rest)?;
    if rest.is_empty() { Ok(bytes) } else { Err(FrameError::Trailing) }
}

/// The whole number that a value is, unless it is negative.
fn whole_number(value: &[u8]) -> Option<u64> {
    let (&kind, rest) = value.split_first()?;
    let (width, is_signed) = match kind {
        0x00..=0x7f => return rest.is_empty().then_some(u64::from(kind)),
        0xcc..=0xcf => (1 << (kind - 0xcc), false),
        0xd0..=0xd3 => (1 << (kind - 0xd0), true),
        _ => return None,
    };
    let (number, rest) = number(width, rest).ok()?;
    let is_negative = is_signed && number >> (8 * width - 1) & 1 == 1;
    (rest.is_empty() && !is_negative).then_some(number)
}

/// The bytes of the value that `bytes` begin with, and the rest. Values within values are counted, not entered: depth
/// costs nothing.
fn value(bytes: &[u8]) -> Result<(&[u8], &[u8]), FrameError> {
    let mut rest = bytes;
    let mut missing: u64 = 1;
    while missing > 0 {
        let (&kind, after) = rest.split_first().ok_or(FrameError::Broken)?;
        let sized = |width| {
            let (length, after) = number(width, after)?;
            take(length, after).map(|(_, after)| after)
        };
        let (inner, after) = match kind {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, after),
            0x80..=0x8f => (2 * u64::from(kind & 0xf), after),
            0x90..=0x9f => (u64::from(kind & 0xf), after),
            0xa0..=0xbf => (0, take(u64::from(kind & 0x1f), after)?.1),
            0xc1 => return Err(FrameError::Broken),
            0xc4 | 0xd9 => (0, sized(1)?),
            0xc5 | 0xda => (0, sized(2)?),
            0xc6 | 0xdb => (0, sized(4)?),
            // An extension has one byte for its type.
            0xc7 => (0, take(1, sized(1)?)?.1),
            0xc8 => (0, take(1, sized(2)?)?.1),
            0xc9 => (0, take(1, sized(4)?)?.1),
            0xca | 0xce | 0xd2 => (0, take(4, after)?.1),
            0xcb | 0xcf | 0xd3 => (0, take(8, after)?.1),
            0xcc | 0xd0 => (0, take(1, after)?.1),
            0xcd | 0xd1 => (0, take(2, after)?.1),
            0xd4..=0xd8 => (0, take(1 + (1 << (kind - 0xd4)), after)?.1),
            0xdc => number(2, after)?,
            0xdd => number(4, after)?,
            0xde => number(2, after).map(|(count, after)| (2 * count, after))?,
            0xdf => number(4, after).map(|(count, after)| (2 * count, after))?,
        };
        missing = missing - 1 + inner;
        // Each value takes a byte at least.
        if missing > after.len() as u64 {
            return Err(FrameError::Broken);
        }
        rest = after;
    }
    Ok(bytes.split_at(bytes.len() - rest.len()))
}

/// The big-endian number of `width` bytes that `bytes` begin with, and the rest.
fn number(width: u64, bytes: &[u8]) -> Result<(u64, &[u8]), FrameError> {
    let (digits, rest) = take(width, bytes)?;
    Ok((digits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)), rest))
}

fn take(length: u64, bytes: &[u8]) -> Result<(&[u8], &[u8]), FrameError> {
    let length = usize::try_from(length).map_err(|_| FrameError::Broken)?;
    bytes.split_at_checked(length).ok_or(FrameError::Broken)
}

fn write_map(to: &mut Vec<u8>, count: usize) {
    match u16::try_from(count) {
        Ok(count @ 0..=15) => to.push(0x80 | count as u8),
        Ok(count) => {
            to.push(0xde);
            to.extend_from_slice(&count.to_be_bytes());
        }
        Err(_) => {
            to.push(0xdf);
            to.extend_from_slice(&(count as u32).to_be_bytes());
        }
    }
}

fn write_text(to: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length @ 0..=31) => to.push(0xa0 | length),
        Ok(length) => to.extend_from_slice(&[0xd9, length]),
        Err(_) => {
            to.push(0xdb);
            to.extend_from_slice(&(text.len() as u32).to_be_bytes());
        }
    }
    to.extend_from_slice(text.as_bytes());
}

/// As a signed number of 8 bytes, whatever its size: `mender-connect` takes an offset in no other form.
fn write_number(to: &mut Vec<u8>, number: u64) {
    to.push(0xd3);
    to.extend_from_slice(&i64::try_from(number).unwrap_or(i64::MAX).to_be_bytes());
}

fn write_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) => to.extend_from_slice(&[0xc4, length]),
        Err(_) => {
            to.push(0xc6);
            to.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        }
    }
    to.extend_from_slice(bytes);
}

fn write_pairs(to: &mut Vec<u8>, pairs: &Pairs<'_>) {
    for (key, value) in pairs {
        write_text(to, key);
        to.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it was seen on the wire: the number in two bytes, the session with a length of its own.
    const SHELL: &[u8] = b"\x82\xa3hdr\x84\xa5proto\xcd\x00\x01\xa3typ\xa3new\xa3sid\xd9\x01x\
        \xa5props\x81\xa6status\x01\xa4body\xc4\rShell started";

    #[test]
    fn the_session_is_replaced_and_everything_else_is_kept() {
        assert_eq!(session_of(SHELL), Ok("x"));
        let sent = addressed(SHELL, "fresh", "ada").unwrap();
        assert_eq!(
            sent,
            b"\x82\xa3hdr\x84\xa5proto\xcd\x00\x01\xa3typ\xa3new\xa3sid\xa5fresh\
            \xa5props\x82\xa6status\x01\xa7user_id\xa3ada\xa4body\xc4\rShell started"
        );
        // What a person says about session and user counts for nothing.
        let again = addressed(&sent, "other", "eve").unwrap();
        assert_eq!(session_of(&again), Ok("other"));
        assert!(!again.windows(3).any(|part| part == b"ada"));
    }

    #[test]
    fn a_frame_without_session_and_props_gets_them() {
        let bare = b"\x81\xa3hdr\x82\xa3typ\xa1x\xa5props\xc0";
        assert_eq!(session_of(bare), Ok(""));
        let sent = addressed(bare, "s", "u").unwrap();
        assert_eq!(sent, b"\x81\xa3hdr\x83\xa3typ\xa1x\xa3sid\xa1s\xa5props\x81\xa7user_id\xa1u");
    }

    #[test]
    fn a_command_is_a_frame() {
        let frame = command(4, "check-update", "", "ada");
        assert_eq!(session_of(&frame), Ok(""));
        assert_eq!(session_of(&addressed(&frame, "s", "u").unwrap()), Ok("s"));
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for body in [&b""[..], b"short", &[7; 4096]] {
            let frame = written(2, "file_chunk", "s", "ada", Some(5_000_000_000), body);
            let read = message(&frame).unwrap();
            assert_eq!((read.proto, read.kind, read.offset), (2, "file_chunk", Some(5_000_000_000)));
            assert_eq!(read.body, body);
            assert_eq!(session_of(&frame), Ok("s"));
        }
        let read = message(SHELL).unwrap();
        assert_eq!((read.proto, read.kind, read.offset, read.body), (1, "new", None, &b"Shell started"[..]));
        // A body that is no bytes, an offset that is negative, a number with something behind it.
        for bytes in [
            &b"\x82\xa3hdr\x80\xa4body\xa1x"[..],
            b"\x81\xa3hdr\x81\xa5props\x81\xa6offset\xff",
            b"\x81\xa3hdr\x81\xa5props\x81\xa6offset\xd1\xff\xff",
            b"\x81\xa3hdr\x81\xa5proto\xa1x",
        ] {
            assert_eq!(message(bytes), Err(FrameError::Unexpected), "{bytes:x?}");
        }
    }

    #[test]
    fn a_body_is_read_as_it_was_written() {
        let pairs = [
            ("path", Given::Text("/etc/os-release")),
            ("size", Given::Number(70_000)),
            ("protocols", Given::Numbers(&[1, 2])),
        ];
        let body = map(&pairs);
        let fields = Fields::of(&body).unwrap();
        assert_eq!(fields.text("path"), Some("/etc/os-release"));
        assert_eq!(fields.number("size"), Some(70_000));
        assert_eq!(fields.numbers("protocols"), Some(vec![1, 2]));
        assert_eq!((fields.text("size"), fields.number("path"), fields.number("none")), (None, None, None));
        // Numbers of every width, and a list that says it is longer than it is.
        let narrow = b"\x84\xa1a\x07\xa1b\xcd\x01\x00\xa1c\xd1\x01\x00\xa1l\x92\x01\xcc\xff";
        let fields = Fields::of(narrow).unwrap();
        assert_eq!(
            (fields.number("a"), fields.number("b"), fields.number("c")),
            (Some(7), Some(256), Some(256))
        );
        assert_eq!(fields.numbers("l"), Some(vec![1, 255]));
        assert!(Fields::of(b"\x81\xa1l\xdd\xff\xff\xff\xff\x01").is_err());
        assert!(Fields::of(b"hello").is_err());
    }

    #[test]
    fn every_cut_frame_is_refused() {
        for end in 0..SHELL.len() {
            assert_eq!(session_of(&SHELL[..end]), Err(FrameError::Broken), "{end}");
        }
        assert_eq!(session_of(&[SHELL, b"\xc0"].concat()), Err(FrameError::Trailing));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for (bytes, error) in [
            (&b"hello"[..], FrameError::Unexpected),
            (b"\x80", FrameError::Header),
            (b"\x82\xa3hdr\x80\xa3hdr\x80", FrameError::Header),
            (b"\x81\xa3hdr\x90", FrameError::Unexpected),
            (b"\x81\xc4\x03hdr\x80", FrameError::Unexpected),
            (b"\x81\xa3hdr\x81\xc4\x03sid\xa1x", FrameError::Unexpected),
            (b"\x81\xa3hdr\x81\xa3sid\x07", FrameError::Unexpected),
            (b"\xdf\xff\xff\xff\xff\xa3hdr\x80", FrameError::Broken),
            (b"\x82\xa3hdr\x80\xa1x\xdd\xff\xff\xff\xff", FrameError::Broken),
            (b"\x82\xa3hdr\x80\xa1x\xc6\xff\xff\xff\xff", FrameError::Broken),
            (b"\x82\xa3hdr\x80\xa1x\xc1", FrameError::Broken),
        ] {
            assert_eq!(session_of(bytes), Err(error), "{bytes:x?}");
        }
        // 60,000 lists in each other cost neither stack nor memory.
        let deep = [b"\x82\xa3hdr\x80\xa1x", &[0x91; 60_000][..], b"\xc0"].concat();
        assert_eq!(session_of(&deep), Ok(""));
    }

    #[test]
    fn every_type_of_value_is_passed_over() {
        for value in [
            &b"\xca\0\0\0\0"[..],
            b"\xcb\0\0\0\0\0\0\0\0",
            b"\xcc\0",
            b"\xcd\0\0",
            b"\xce\0\0\0\0",
            b"\xcf\0\0\0\0\0\0\0\0",
            b"\xd0\0",
            b"\xd1\0\0",
            b"\xd2\0\0\0\0",
            b"\xd3\0\0\0\0\0\0\0\0",
            b"\xd4\0\0",
            b"\xd6\xff\0\0\0\0",
            b"\xd8\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"\xc7\x01\0\0",
            b"\xc8\0\x01\0\0",
            b"\xc9\0\0\0\x01\0\0",
            b"\xd9\x01a",
            b"\xda\0\x01a",
            b"\xdb\0\0\0\x01a",
            b"\xc5\0\x01a",
            b"\xc6\0\0\0\x01a",
            b"\xdc\0\x01\x01",
            b"\xdd\0\0\0\x01\x01",
            b"\xde\0\x01\x01\x01",
            b"\xdf\0\0\0\x01\x01\x01",
            b"\x92\xc2\xc3",
            b"\x81\xe0\x7f",
        ] {
            let frame = [b"\x82\xa1x", value, b"\xa3hdr\x81\xa3sid\xa1s"].concat();
            assert_eq!(session_of(&frame), Ok("s"), "{value:x?}");
        }
    }
}
