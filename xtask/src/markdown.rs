//! Generated parts of Markdown pages, between `<!-- NAME -->` and `<!-- /NAME -->`.

use crate::Outcome;

/// The text between the markers of `name`, without the line ends next to them.
pub fn section<'a>(page: &'a str, name: &str) -> Outcome<&'a str> {
    let (start, end) = bounds(page, name)?;
    Ok(page[start..end].trim_matches('\n'))
}

/// `page` with `content` between the markers of `name`.
pub fn with_section(page: &str, name: &str, content: &str) -> Outcome<String> {
    let (start, end) = bounds(page, name)?;
    Ok(format!("{}\n\n{}\n\n{}", &page[..start], content.trim_matches('\n'), &page[end..]))
}

fn bounds(page: &str, name: &str) -> Outcome<(usize, usize)> {
    let (open, close) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let start = page.find(&open).ok_or_else(|| format!("the page has no {open}"))? + open.len();
    let length = page[start..].find(&close).ok_or_else(|| format!("the page has no {close} after {open}"))?;
    Ok((start, start + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "before\n<!-- table -->\nold\n<!-- /table -->\nafter\n";

    #[test]
    fn a_section_is_found_and_replaced_and_the_rest_stays() {
        assert_eq!(section(PAGE, "table"), Ok("old"));
        let page = with_section(PAGE, "table", "new\n").unwrap();
        assert_eq!(page, "before\n<!-- table -->\n\nnew\n\n<!-- /table -->\nafter\n");
        assert_eq!(section(&page, "table"), Ok("new"));
        assert_eq!(with_section(&page, "table", "new").unwrap(), page);
    }

    #[test]
    fn a_page_without_the_markers_is_an_error() {
        assert!(section("text", "table").is_err());
        assert!(section("<!-- table -->", "table").is_err());
    }
}
