//! What an answer to a request for an artifact, or for its rest, means. Pure: headers in, a judgement out.

use super::Response;
use super::exchange::{foreign_coding, is_redirect, shortened};

/// What is known of the thing that is being transferred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Length of the whole.
    pub(super) total: Option<u64>,
    /// A validator that guarantees the same bytes: a strong entity tag (RFC 9110, 8.8.3).
    pub(super) etag: Option<String>,
    /// One that does not guarantee that: another one shows that it is something else, the same one shows nothing.
    pub(super) weak_etag: Option<String>,
    pub(super) last_modified: Option<String>,
    /// Whether it is declared to be a web page.
    pub(super) web_page: bool,
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// A body that begins `skip` bytes before the wanted byte and has `length` bytes, where that is known.
    Body { skip: u64, length: Option<u64>, content: Content },
    /// A body as above, of which nothing shows that it is of the same thing, and nothing that it is not.
    Unproven { skip: u64, length: Option<u64>, content: Content },
    /// There is no rest: everything is here already.
    Complete,
    /// A part was asked for in vain: ask for everything.
    NoPart,
    /// Ask at the address of `location`.
    Elsewhere,
    /// The address is good no more; the deployment may have a new one.
    Expired,
    /// Trying again may help.
    TryAgain(String),
    /// What is there is not what was being transferred.
    Changed(String),
    /// This status is not an answer, and would not be later.
    Refused,
    /// The answer cannot be used.
    Unusable(String),
}

/// Judges the answer to the first request, which was for everything or for a part at the beginning.
pub(super) fn begin(response: &Response, for_a_part: bool) -> Judgement {
    if let Some(verdict) = without_body(response) {
        return verdict;
    }
    let length = match (response.status, response.header("content-range").and_then(content_range)) {
        (200, _) => length(response),
        // Asked for or not: one that says that it begins at the beginning does. The rest is asked for.
        (206, Some(Range { first: 0, last, total: Some(total) })) => {
            let length = last.checked_add(1);
            return Judgement::Body { skip: 0, length, content: Content::of(response, Some(total)) };
        }
        // What is empty has no first part, and one of something without a length shows nothing. Some servers refuse the
        // very question.
        _ if for_a_part => return Judgement::NoPart,
        _ => return Judgement::Refused,
    };
    let content = Content::of(response, length);
    Judgement::Body { skip: 0, length: content.total, content }
}

/// Judges the answer to a request for the bytes from `offset` on (RFC 9110, sections 14 and 15). `new_link`: the address
/// is another one than that from which `known` comes.
///
/// Servers of the S3 kind ignore `If-Range` and answer 206 for whatever is there now, so a part is believed for what it
/// shows and not for being one. The same strong entity tag decides alone. Without one the length must be known and
/// equal, and what else is told must not contradict. Behind a new link another storage may tag the same bytes
/// differently, so there the length decides. In the end the signature and the digests of the artifact do.
pub(super) fn go_on(response: &Response, offset: u64, known: &Content, new_link: bool) -> Judgement {
    if let Some(verdict) = without_body(response) {
        return verdict;
    }
    if response.status == 416 {
        return not_satisfiable(response, offset, known);
    }
    let (skip, length, total) = match response.status {
        200 => (offset, length(response), length(response)),
        206 => {
            let Some(range) = response.header("content-range").and_then(content_range) else {
                return Judgement::TryAgain("a partial answer without a usable content-range".into());
            };
            let Range { first, last, total } = range;
            if first > offset || last < offset {
                return Judgement::TryAgain(format!("bytes {first} to {last}, asked was {offset}"));
            }
            // Not above: the end was checked to be below the whole, which is a number.
            let count = (last - first).checked_add(1);
            if self::length(response).is_some_and(|length| Some(length) != count) {
                return Judgement::TryAgain("content-range and content-length disagree".into());
            }
            (offset - first, count, total)
        }
        _ => return Judgement::Refused,
    };
    let new = Content::of(response, total);
    if new.web_page && !known.web_page {
        return Judgement::TryAgain("a web page (a captive portal?)".into());
    }
    match same(known, &new, response, new_link) {
        Ok(true) => Judgement::Body { skip, length, content: known.updated(new) },
        Ok(false) => Judgement::Unproven { skip, length, content: known.updated(new) },
        Err(reason) => Judgement::Changed(reason),
    }
}

/// Whether something shows that what is offered now is what was being transferred. Fails with what shows that it is not.
fn same(known: &Content, new: &Content, response: &Response, new_link: bool) -> Result<bool, String> {
    if let (Some(old), Some(new)) = (known.total, new.total) {
        if old != new {
            return Err(format!("its length was {old} and is {new}"));
        }
    }
    let length_is_equal = known.total.is_some() && known.total == new.total;
    let elsewhere = new_link && length_is_equal;
    if let Some(tag) = response.header("etag") {
        let is_other = match (&known.etag, &known.weak_etag) {
            (Some(strong), _) if tag == strong => return Ok(true),
            (Some(_), _) => true,
            (None, Some(weak)) => opaque(tag) != opaque(weak),
            (None, None) => false,
        };
        if is_other && !elsewhere {
            return Err("its entity tag is another one".into());
        }
    }
    let modified = (&known.last_modified, &new.last_modified);
    if let ((Some(old), Some(new)), false) = (modified, new_link) {
        if old != new {
            return Err("it was modified".into());
        }
    }
    Ok(length_is_equal)
}

/// An entity tag without its weakness: what weak comparison looks at (RFC 9110, 8.8.3.2).
fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// `bytes */N` tells the length: with N bytes here, only the end of the transfer was lost (RFC 9110, 15.5.17).
fn not_satisfiable(response: &Response, offset: u64, known: &Content) -> Judgement {
    let text = response.header("content-range");
    let total = text.and_then(|text| number(text.trim().strip_prefix("bytes */")?));
    match total {
        Some(total) if known.total.is_none() && total == offset => Judgement::Complete,
        Some(total) if known.total == Some(total) && offset < total => {
            Judgement::TryAgain(format!("byte {offset} of {total} was refused"))
        }
        Some(total) => Judgement::Changed(format!("its length is {total}")),
        None => Judgement::Changed("it is shorter".into()),
    }
}

/// What can be said without looking at the body's place.
fn without_body(response: &Response) -> Option<Judgement> {
    let status = response.status;
    if is_redirect(status) {
        return Some(Judgement::Elsewhere);
    }
    if matches!(status, 401 | 403 | 404 | 410) {
        return Some(Judgement::Expired);
    }
    if status >= 500 || matches!(status, 408 | 429) {
        return Some(Judgement::TryAgain(format!("status {status}")));
    }
    let coding = foreign_coding(response).filter(|_| matches!(status, 200 | 206));
    coding.map(|coding| {
        Judgement::Unusable(format!("content encoding {}, which was not asked for", shortened(coding)))
    })
}

impl Content {
    fn of(response: &Response, total: Option<u64>) -> Content {
        let etag = response.header("etag").filter(|tag| is_plain(tag));
        let (strong, weak) = (|tag: &&str| tag.starts_with('"'), |tag: &&str| tag.starts_with("W/\""));
        let date = response.header("last-modified").filter(|date| is_plain(date));
        let kind = response.header("content-type").unwrap_or_default().trim_start().as_bytes();
        Content {
            total,
            etag: etag.filter(strong).map(str::to_owned),
            weak_etag: etag.filter(weak).map(str::to_owned),
            last_modified: date.map(str::to_owned),
            web_page: kind.get(..9).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/html")),
        }
    }

    /// With what `new` tells of the same thing.
    fn updated(&self, new: Content) -> Content {
        Content {
            total: self.total.or(new.total),
            etag: new.etag.or_else(|| self.etag.clone()),
            weak_etag: new.weak_etag.or_else(|| self.weak_etag.clone()),
            last_modified: new.last_modified.or_else(|| self.last_modified.clone()),
            web_page: self.web_page,
        }
    }

    /// What guards a request for the rest: the server answers with everything if it is not the same any more.
    pub(super) fn if_range(&self) -> Option<&str> {
        self.etag.as_deref().or(self.last_modified.as_deref())
    }
}

/// Whether a value may be sent back in a header. Longer ones are not worth it.
fn is_plain(value: &str) -> bool {
    value.len() <= 256 && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

fn length(response: &Response) -> Option<u64> {
    number(response.header("content-length")?.trim())
}

#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
    total: Option<u64>,
}

/// `bytes 5-9/10`; the length may be `*`.
fn content_range(text: &str) -> Option<Range> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    (first <= last && total.is_none_or(|total| last < total)).then_some(Range { first, last, total })
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Response { status, headers, body: Box::new(std::io::empty()) }
    }

    /// Which kind of verdict, for the resume matrix.
    fn kind(verdict: &Judgement) -> &'static str {
        match verdict {
            Judgement::Body { .. } => "body",
            Judgement::Unproven { .. } => "unproven",
            Judgement::Complete => "complete",
            Judgement::NoPart => "no part",
            Judgement::Elsewhere => "elsewhere",
            Judgement::Expired => "expired",
            Judgement::TryAgain(_) => "again",
            Judgement::Changed(_) => "changed",
            Judgement::Refused => "refused",
            Judgement::Unusable(_) => "unusable",
        }
    }

    #[test]
    fn a_content_range_must_make_sense() {
        let check = |text, expected: Option<(u64, u64, Option<u64>)>| {
            let expected = expected.map(|(first, last, total)| Range { first, last, total });
            assert_eq!(content_range(text), expected, "{text}");
        };
        check("bytes 5-9/10", Some((5, 9, Some(10))));
        check("bytes 5-9/*", Some((5, 9, None)));
        for text in
            ["bytes 9-5/10", "bytes 5-10/10", "bytes -5/10", "items 5-9/10", "", "bytes 5-9", "bytes */10"]
        {
            check(text, None);
        }
        check("bytes 18446744073709551616-9/10", None);
        check("bytes +5-9/10", None);
        check("bytes 0-18446744073709551615/*", Some((0, u64::MAX, None)));
    }

    /// Transfers 10 bytes of which 4 are here. Every combination has a verdict, and the rules that matter hold for all.
    #[test]
    fn every_answer_to_a_request_for_the_rest_has_a_verdict() {
        let statuses = [200, 206, 204, 302, 403, 416, 418, 429, 503];
        let ranges = [
            None,
            Some("bytes 4-9/10"),
            Some("bytes 2-9/10"),
            Some("bytes 5-9/10"),
            Some("bytes 4-9/*"),
            Some("bytes 4-10/11"),
            Some("bytes 0-3/10"),
            Some("bytes */10"),
            Some("bytes */4"),
            Some("garbage"),
        ];
        let tags = [None, Some("\"v1\""), Some("\"v2\""), Some("W/\"v1\"")];
        let lengths = [None, Some("6"), Some("10"), Some("11")];
        let codings = [None, Some("identity"), Some("gzip")];
        let knowns = [
            Content { total: Some(10), etag: Some("\"v1\"".into()), ..Content::default() },
            Content { total: Some(10), last_modified: Some("yesterday".into()), ..Content::default() },
            Content { total: Some(10), ..Content::default() },
            Content { total: None, etag: Some("\"v1\"".into()), ..Content::default() },
            Content::default(),
        ];
        let mut count = 0;
        for status in statuses {
            for range in ranges {
                for tag in tags {
                    for length in lengths {
                        for coding in codings {
                            for known in &knowns {
                                for new_link in [false, true] {
                                    let headers: Vec<(&str, &str)> = [
                                        ("content-range", range),
                                        ("etag", tag),
                                        ("content-length", length),
                                        ("content-encoding", coding),
                                    ]
                                    .into_iter()
                                    .filter_map(|(name, value)| Some((name, value?)))
                                    .collect();
                                    let verdict = go_on(&response(status, &headers), 4, known, new_link);
                                    check_row(&verdict, status, &headers, known, new_link);
                                    count += 1;
                                }
                            }
                        }
                    }
                }
            }
        }
        assert!(count > 40_000);
    }

    fn check_row(
        verdict: &Judgement,
        status: u16,
        headers: &[(&str, &str)],
        known: &Content,
        new_link: bool,
    ) {
        let row = format!("{status} {headers:?} {known:?} {new_link}: {verdict:?}");
        let header = |name: &str| headers.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
        let other_tag = header("etag").is_some_and(|tag| known.etag.as_deref().is_some_and(|old| old != tag));
        let found = kind(verdict);
        match status {
            302 => assert_eq!(found, "elsewhere", "{row}"),
            403 => assert_eq!(found, "expired", "{row}"),
            429 | 503 => assert_eq!(found, "again", "{row}"),
            204 | 418 => assert_eq!(found, "refused", "{row}"),
            416 => {
                let expected = match (header("content-range"), known.total) {
                    (Some("bytes */4"), None) => "complete",
                    (Some("bytes */10"), Some(10)) => "again",
                    _ => "changed",
                };
                assert_eq!(found, expected, "{row}");
            }
            _ if header("content-encoding") == Some("gzip") => assert_eq!(found, "unusable", "{row}"),
            _ => {
                if let Judgement::Body { skip, content, .. } = verdict {
                    assert!(!other_tag || new_link, "{row}");
                    let range = header("content-range").filter(|_| status == 206);
                    let expected = match range {
                        Some("bytes 4-9/10" | "bytes 4-9/*" | "bytes 4-10/11") => 0,
                        Some("bytes 2-9/10") => 2,
                        Some(_) => panic!("{row}"),
                        None => 4,
                    };
                    assert_eq!(*skip, expected, "{row}");
                    assert!(known.total.is_none() || content.total == known.total, "{row}");
                    // Something showed that it is the same.
                    let same_tag = header("etag").is_some() && header("etag") == known.etag.as_deref();
                    assert!(same_tag || known.total.is_some(), "{row}");
                } else if found == "unproven" {
                    assert!(
                        known.total.is_none()
                            || header("content-range") == Some("bytes 4-9/*")
                            || status == 200,
                        "{row}"
                    );
                    assert!(!other_tag, "{row}");
                } else {
                    assert!(matches!(found, "again" | "changed"), "{row}");
                }
            }
        }
    }

    #[test]
    fn the_rules_of_sameness() {
        let tagged = Content { total: Some(10), etag: Some("\"v1\"".into()), ..Content::default() };
        let dated = Content { total: Some(10), last_modified: Some("a".into()), ..Content::default() };
        let weak = Content { total: Some(10), weak_etag: Some("W/\"v1\"".into()), ..Content::default() };
        let endless = Content { etag: Some("\"v1\"".into()), ..Content::default() };
        let part = ("content-range", "bytes 4-9/10");
        let check = |known: &Content, new_link, status, headers: &[(&str, &str)], expected| {
            let verdict = go_on(&response(status, headers), 4, known, new_link);
            assert_eq!(kind(&verdict), expected, "{status} {headers:?}: {verdict:?}");
        };
        check(&tagged, false, 206, &[part, ("etag", "\"v1\"")], "body");
        check(&tagged, false, 206, &[part, ("etag", "\"v2\"")], "changed");
        check(&tagged, true, 206, &[part, ("etag", "\"v2\"")], "body");
        check(&tagged, true, 206, &[("content-range", "bytes 4-9/*"), ("etag", "\"v2\"")], "changed");
        check(&tagged, false, 206, &[part], "body");
        check(&tagged, false, 206, &[("content-range", "bytes 4-9/*")], "unproven");
        check(&tagged, false, 206, &[("content-range", "bytes 4-9/*"), ("etag", "\"v1\"")], "body");
        check(&tagged, true, 206, &[("content-range", "bytes 4-9/*")], "unproven");
        check(&tagged, false, 200, &[("content-length", "10")], "body");
        check(&tagged, false, 200, &[], "unproven");
        check(&endless, false, 200, &[("etag", "\"v1\"")], "body");
        check(&endless, false, 200, &[], "unproven");
        check(&weak, false, 206, &[part, ("etag", "W/\"v1\"")], "body");
        check(&weak, false, 206, &[part, ("etag", "\"v1\"")], "body");
        check(&weak, false, 206, &[part, ("etag", "W/\"v2\"")], "changed");
        check(&weak, false, 200, &[("content-length", "10"), ("etag", "\"v2\"")], "changed");
        check(&weak, true, 206, &[part, ("etag", "W/\"v2\"")], "body");
        check(&weak, false, 206, &[("content-range", "bytes 4-9/*"), ("etag", "W/\"v1\"")], "unproven");
        check(&dated, false, 206, &[part, ("last-modified", "a")], "body");
        check(&dated, false, 206, &[part, ("last-modified", "b")], "changed");
        check(&dated, true, 206, &[part, ("last-modified", "b")], "body");
        check(&dated, false, 206, &[("content-range", "bytes 4-9/*"), ("last-modified", "a")], "unproven");
        check(&Content::default(), false, 206, &[part], "unproven");
        check(&tagged, false, 206, &[part, ("content-length", "7")], "again");
        check(&tagged, false, 200, &[("content-type", "Text/HTML; charset=utf-8")], "again");
    }

    #[test]
    fn the_first_answer_has_to_be_200() {
        for status in 100..600 {
            let verdict = begin(&response(status, &[("content-length", "10"), ("etag", "W/\"v\"")]), false);
            let expected = match status {
                200 => "body",
                301 | 302 | 303 | 307 | 308 => "elsewhere",
                401 | 403 | 404 | 410 => "expired",
                408 | 429 | 500.. => "again",
                _ => "refused",
            };
            assert_eq!(kind(&verdict), expected, "{status}");
        }
        let from_the_beginning = response(206, &[("content-range", "bytes 0-9/12")]);
        let Judgement::Body { skip: 0, length: Some(10), content } = begin(&from_the_beginning, true) else {
            panic!("a part that says that it is the first")
        };
        assert_eq!(content.total, Some(12));
        for range in ["bytes 1-9/12", "bytes 0-9/*", "bytes 0-9"] {
            for (for_a_part, expected) in [(false, "refused"), (true, "no part")] {
                let verdict = begin(&response(206, &[("content-range", range)]), for_a_part);
                assert_eq!(kind(&verdict), expected, "{range}");
            }
        }
        for (status, for_a_part, expected) in
            [(400, true, "no part"), (405, true, "no part"), (400, false, "refused"), (403, true, "expired")]
        {
            assert_eq!(kind(&begin(&response(status, &[]), for_a_part)), expected, "{status}");
        }
        let empty = begin(&response(416, &[("content-range", "bytes */0")]), true);
        assert_eq!(kind(&empty), "no part");
        let odd = response(200, &[("content-length", "+1"), ("etag", "\"v\r\n\""), ("content-encoding", "")]);
        let Judgement::Body { content, .. } = begin(&odd, false) else { panic!("a body") };
        assert_eq!(content, Content::default());
    }
}
