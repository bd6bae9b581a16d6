//! The id of a deployment: the one rule for what may be one.

use std::fmt;

/// Longest id: ids are UUIDs or numbers, and become parts of addresses and names of files.
const ID_BYTES_MAX: usize = 128;

/// The id that a server gave to a deployment: one plain component of an address or of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeploymentId(String);

/// What is not the id of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnId;

impl fmt::Display for NotAnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this cannot be the id of a deployment")
    }
}

impl std::error::Error for NotAnId {}

impl DeploymentId {
    /// Takes what a server calls a deployment: 1 to 128 printable characters of ASCII without a blank, none of
    /// `/ \ ? # %`, and nothing that means a directory. A colon is fine: servers number an action within a campaign.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(id: &str) -> Result<DeploymentId, NotAnId> {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"/\\?#%".contains(&byte);
        let fits = (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain);
        if fits && id != "." && !id.contains("..") { Ok(DeploymentId(id.to_owned())) } else { Err(NotAnId) }
    }

    /// An id of the record of this device: it was parsed before it came there, and is not judged again. A deployment
    /// that was begun must come to its end.
    pub fn remembered(id: impl Into<String>) -> DeploymentId {
        DeploymentId(id.into())
    }

    /// The id as the server wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_plain_component() {
        let check = |id: &str, fits: bool| assert_eq!(DeploymentId::parse(id).is_ok(), fits, "{id:?}");
        for id in
            ["d1", "a:b", "1.2", ".x", "0", "~", "w912bf0e-6c50-4b4c-a4a9-0d9c4a8f0a6e", &"x".repeat(128)]
        {
            check(id, true);
        }
        for id in ["", ".", "..", "../x", "a/b", "a\\b", "a b", "a\nb", "a..b", "ä", "a%2fb", "a?b", "a#b"] {
            check(id, false);
        }
        check(&"x".repeat(129), false);
    }
}
