//! Links in Markdown pages that lead to a file of the repository.

use std::path::{Component, Path, PathBuf};

/// Links of the page at `path` to files that do not exist. In the README also pages that are only named.
pub fn findings(path: &Path, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let named = if path == Path::new("README.md") { named_pages(line) } else { Vec::new() };
        for target in targets(line).into_iter().chain(named) {
            if !exists(&normal(&directory.join(target))) {
                findings.push(format!("{}:{}: {target} does not exist", path.display(), index + 1));
            }
        }
    }
    findings.dedup();
    findings
}

/// Targets of the links in `line` that are paths.
fn targets(line: &str) -> Vec<&str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter_map(|target| target.split(['#', ' ']).next())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}

/// Words like `docs/page.md`.
fn named_pages(line: &str) -> Vec<&str> {
    line.split(|c: char| !(c.is_alphanumeric() || "/-_.".contains(c)))
        .filter(|word| word.starts_with("docs/") && word.ends_with(".md"))
        .collect()
}

/// `path` without `..` and `.`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => normal.push(component),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, complaints: &[&str]) {
        let exists = |path: &Path| ["README.md", "docs/there.md"].contains(&path.to_str().unwrap());
        assert_eq!(findings(Path::new(path), text, &exists), complaints);
    }

    #[test]
    fn a_link_to_nothing_is_reported() {
        check("README.md", "\nsee [x](docs/gone.md#part)", &["README.md:2: docs/gone.md does not exist"]);
        check("docs/there.md", "[x](../GONE.md)", &["docs/there.md:1: ../GONE.md does not exist"]);
        check("README.md", "see `docs/gone.md`.", &["README.md:1: docs/gone.md does not exist"]);
    }

    #[test]
    fn links_that_lead_somewhere_or_away_are_fine() {
        check("README.md", "[x](docs/there.md#part) [y](https://example.com/a.md) [z](#here)", &[]);
        check("docs/there.md", "[x](../README.md) [y](./there.md) [m](mailto:a@example.com)", &[]);
    }
}
