//! What may be in an archive that holds a tree, member by member. The device that unpacks it and the tool that writes it
//! ask the same rules.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::tree::{Attributes, Member, MemberKind};

/// Bytes of names and attributes that are kept while an archive is unpacked: those of directories and of symbolic
/// links. Enough for some ten thousands of them.
const KEPT_BYTES: usize = 4 << 20;

/// Where members go, inside of the tree only.
#[derive(Default)]
pub struct TreeRules {
    /// Symbolic links so far: nothing may be put behind one.
    links: BTreeSet<PathBuf>,
    kept_bytes: usize,
}

/// Where one member goes, relative to the root.
pub struct Place {
    /// `None` for the root itself.
    pub path: Option<PathBuf>,
    /// What a hard link leads to.
    pub link: Option<PathBuf>,
}

/// Why a member may not be in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TreeProblem {
    /// It would come to lie outside of the tree.
    Escapes {
        /// Its name.
        member: String,
        /// Why.
        reason: &'static str,
    },
    /// The tree has more directories than are kept in memory.
    TooManyDirectories {
        /// Bytes of their names and attributes that are kept at once.
        limit_bytes: usize,
    },
}

impl fmt::Display for TreeProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TreeProblem::Escapes { member, reason } => {
                write!(f, "the member {member:?} of update.tar {reason}")
            }
            TreeProblem::TooManyDirectories { limit_bytes } => write!(
                f,
                "update.tar has too many directories and links: their names and attributes, with 64 bytes for each, \
                 are over the limit of {limit_bytes} bytes"
            ),
        }
    }
}

impl std::error::Error for TreeProblem {}

impl TreeRules {
    /// Takes the next member and says where it goes, or why a device would refuse the archive here.
    ///
    /// # Errors
    /// When it would come to lie outside of the tree, or there are too many directories and links.
    pub fn place(&mut self, member: &Member) -> Result<Place, TreeProblem> {
        let escapes = |reason| {
            let member = String::from_utf8_lossy(&member.path).into_owned();
            TreeProblem::Escapes { member, reason }
        };
        let path = inside(&member.path).map_err(escapes)?;
        self.check_way(&path).map_err(escapes)?;
        let mut link = None;
        match &member.kind {
            MemberKind::HardLink(target) => {
                let target = inside(target).map_err(escapes)?;
                self.check_way(&target).map_err(escapes)?;
                link = Some(target);
            }
            MemberKind::Symlink(_) => {
                self.keep(&path, &member.attributes)?;
                self.links.insert(path.clone());
            }
            MemberKind::Directory => self.keep(&path, &member.attributes)?,
            MemberKind::File(_)
            | MemberKind::Fifo
            | MemberKind::CharacterDevice(..)
            | MemberKind::BlockDevice(..) => {}
        }
        let is_root = |path: &PathBuf| path.as_os_str().is_empty();
        if is_root(&path) && member.kind != MemberKind::Directory || link.as_ref().is_some_and(is_root) {
            return Err(escapes("takes the place of the tree itself"));
        }
        Ok(Place { path: Some(path).filter(|path| !is_root(path)), link })
    }

    /// Refuses a way through a symbolic link of the archive.
    fn check_way(&self, path: &Path) -> Result<(), &'static str> {
        match path.ancestors().skip(1).any(|way| self.links.contains(way)) {
            true => Err("lies behind a symbolic link"),
            false => Ok(()),
        }
    }

    fn keep(&mut self, path: &Path, attributes: &Attributes) -> Result<(), TreeProblem> {
        let xattrs = attributes.xattrs.iter().map(|(name, value)| name.len() + value.len());
        self.kept_bytes += path.as_os_str().len() + attributes.user.len() + attributes.group.len() + 64;
        self.kept_bytes += xattrs.sum::<usize>();
        match self.kept_bytes > KEPT_BYTES {
            true => Err(TreeProblem::TooManyDirectories { limit_bytes: KEPT_BYTES }),
            false => Ok(()),
        }
    }
}

/// A name without `.` and doubled slashes; empty for the root.
fn inside(name: &[u8]) -> Result<PathBuf, &'static str> {
    if name.starts_with(b"/") {
        return Err("is absolute");
    }
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("leads upwards"),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(names: &mut TreeRules, path: &str, kind: MemberKind) -> Result<Option<PathBuf>, String> {
        let member = Member { path: path.into(), kind, attributes: Attributes::default() };
        names.place(&member).map(|place| place.path).map_err(|error| error.to_string())
    }

    #[test]
    fn names_stay_inside_of_the_tree() {
        let check = |path: &str, expected: Result<&str, &str>| {
            let found = place(&mut TreeRules::default(), path, MemberKind::File(0));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, Some(PathBuf::from(expected)), "{path}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{path}: {found}"),
                (found, _) => panic!("{path}: {found:?}"),
            }
        };
        check("./a/b", Ok("a/b"));
        check("a//./b", Ok("a/b"));
        check("/etc/passwd", Err("is absolute"));
        check("a/../../b", Err("leads upwards"));
        check("..", Err("leads upwards"));
        check("./", Err("the place of the tree itself"));
        assert_eq!(place(&mut TreeRules::default(), "./", MemberKind::Directory), Ok(None));
    }

    #[test]
    fn nothing_goes_behind_a_symbolic_link() {
        let mut names = TreeRules::default();
        place(&mut names, "./out", MemberKind::Symlink(b"/etc".to_vec())).unwrap();
        place(&mut names, "./outer/x", MemberKind::File(0)).unwrap();
        for (path, kind) in [
            ("out/passwd", MemberKind::File(0)),
            ("out/a/b", MemberKind::Directory),
            ("in", MemberKind::HardLink(b"out/passwd".to_vec())),
        ] {
            let error = place(&mut names, path, kind).unwrap_err();
            assert!(error.contains("behind a symbolic link"), "{error}");
        }
        place(&mut names, "in", MemberKind::HardLink(b"out".to_vec())).unwrap();
        let error = place(&mut names, "in", MemberKind::HardLink(b"../x".to_vec())).unwrap_err();
        assert!(error.contains("leads upwards"), "{error}");
    }

    #[test]
    fn memory_does_not_grow_with_the_number_of_directories() {
        let mut names = TreeRules::default();
        let error = (0..1_000_000)
            .find_map(|at| place(&mut names, &format!("d{at}"), MemberKind::Directory).err())
            .unwrap();
        assert!(error.contains("too many") && error.contains("4194304"), "{error}");
    }
}
