//! Where the body of a message ends, by counting (RFC 9112, section 6). Changes no byte.

/// Longest line of a chunk's size with its extensions, and longest trailer section, in bytes.
const LINE_BYTES: usize = 4 * 1024;

/// A body that is not what its head announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What is still to come of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// Everything until the connection ends.
    UntilEnd,
}

impl Body {
    /// No body.
    pub(super) const NONE: Body = Body::Length(0);

    /// Whether nothing is to come.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunks) => chunks.place == Place::Over,
            Body::UntilEnd => false,
        }
    }

    /// How many of `bytes`, the next ones of the connection, belong to the body. Counts them as seen.
    ///
    /// # Errors
    /// When the chunks are not well formed.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            Body::Length(left) => {
                let count = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= count as u64;
                Ok(count)
            }
            Body::Chunked(chunks) => chunks.take(bytes),
            Body::UntilEnd => Ok(bytes.len()),
        }
    }
}

/// How far the chunks are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chunks {
    place: Place,
    /// Of the size that is being read, then of the data that is left.
    bytes: u64,
    /// Of the line or the trailers.
    length: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Before the first digit of a size.
    #[default]
    Start,
    Size,
    Extension,
    EndOfSize,
    Data,
    AfterData,
    EndOfData,
    /// At the start of a line of the trailers.
    Trailers,
    Trailer,
    EndOfTrailer,
    EndOfTrailers,
    Over,
}

impl Chunks {
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && self.place != Place::Over {
            if self.place == Place::Data {
                let count = usize::try_from(self.bytes).map_or(bytes.len() - at, |n| n.min(bytes.len() - at));
                at += count;
                self.bytes -= count as u64;
                if self.bytes == 0 {
                    self.place = Place::AfterData;
                }
            } else {
                self.place = self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// One byte that is not data. A line ends with CR and LF: what one reader takes for the end must be it
    /// for all.
    fn step(&mut self, byte: u8) -> Result<Place, Malformed> {
        self.length += 1;
        if self.length > LINE_BYTES {
            return Err(Malformed);
        }
        let expect = |expected: u8, next: Place| if byte == expected { Ok(next) } else { Err(Malformed) };
        match self.place {
            Place::Start | Place::Size => match (byte, char::from(byte).to_digit(16)) {
                (_, Some(digit)) => {
                    self.bytes = self.bytes.checked_mul(16).ok_or(Malformed)? + u64::from(digit);
                    Ok(Place::Size)
                }
                (b'\r', None) if self.place == Place::Size => Ok(Place::EndOfSize),
                (b';' | b' ' | b'\t', None) if self.place == Place::Size => Ok(Place::Extension),
                (_, None) => Err(Malformed),
            },
            Place::Extension => match byte {
                b'\r' => Ok(Place::EndOfSize),
                b'\n' => Err(Malformed),
                _ => Ok(Place::Extension),
            },
            Place::EndOfSize => {
                self.length = 0;
                expect(b'\n', if self.bytes == 0 { Place::Trailers } else { Place::Data })
            }
            Place::AfterData => expect(b'\r', Place::EndOfData),
            Place::EndOfData => {
                self.length = 0;
                expect(b'\n', Place::Start)
            }
            Place::Trailers | Place::Trailer => match byte {
                b'\r' if self.place == Place::Trailers => Ok(Place::EndOfTrailers),
                b'\r' => Ok(Place::EndOfTrailer),
                b'\n' => Err(Malformed),
                _ => Ok(Place::Trailer),
            },
            Place::EndOfTrailer => expect(b'\n', Place::Trailers),
            Place::EndOfTrailers => expect(b'\n', Place::Over),
            Place::Data | Place::Over => Ok(self.place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `bytes` a chunked body takes, byte by byte and at once, and whether it is over then.
    fn check(bytes: &[u8], expected: Result<(usize, bool), Malformed>) {
        let mut whole = Body::Chunked(Chunks::default());
        let taken = whole.take(bytes).map(|count| (count, whole.is_over()));
        assert_eq!(taken, expected, "{}", String::from_utf8_lossy(bytes));
        let mut single = Body::Chunked(Chunks::default());
        let each = bytes.iter().try_fold(0, |sum, byte| Ok(sum + single.take(&[*byte])?));
        assert_eq!(each.map(|count| (count, single.is_over())), expected);
    }

    #[test]
    fn chunks_end_where_they_say() {
        check(b"0\r\n\r\nGET", Ok((5, true)));
        check(b"3\r\nabc\r\n00\r\n\r\nGET", Ok((14, true)));
        check(b"A;x=\"1\"\r\n0123456789\r\n0 \r\nx: y\r\nz: 1\r\n\r\n!", Ok((39, true)));
        check(b"3\r\nab", Ok((5, false)));
        check(b"", Ok((0, false)));
    }

    #[test]
    fn chunks_that_two_readers_could_understand_differently_are_refused() {
        let long = [b"1;", &[b'x'; LINE_BYTES][..]].concat();
        let trailers = [b"0\r\n", &b"a: b\r\n".repeat(LINE_BYTES / 6 + 1)[..]].concat();
        for bytes in [
            &b"\r\n"[..],
            b"3\nabc\r\n",
            b"3\r\nabcd",
            b"3\r\nabc\n0",
            b"-3\r\n",
            b"+3\r\n",
            b"0x3\r\n",
            b" 3\r\n",
            b"11111111111111111\r\n",
            b"3\rabc",
            b"1;a\nb\r\n",
            b"0\r\n\n",
            b"0\r\na: b\n",
            &long,
            &trailers,
        ] {
            check(bytes, Err(Malformed));
        }
    }

    #[test]
    fn a_length_is_counted_down() {
        let mut body = Body::Length(5);
        assert_eq!((body.take(b"abc"), body.is_over()), (Ok(3), false));
        assert_eq!((body.take(b"defg"), body.is_over()), (Ok(2), true));
        assert_eq!(body.take(b"x"), Ok(0));
        assert!(Body::NONE.is_over() && !Body::UntilEnd.is_over());
    }
}
