//! What comes from elsewhere or takes long to make, kept between runs by the hash of its recipe.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fs2::FileExt;
use sha2::{Digest, Sha256};

use crate::Outcome;

/// The folder that keeps it. Who removes it loses time and nothing else.
#[derive(Debug, Clone)]
pub struct Cache {
    place: PathBuf,
}

impl Cache {
    /// In `ROTA_QEMU_CACHE`, else in `rust-ota` of the user's cache directory.
    pub fn open() -> Outcome<Cache> {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let place = variable("ROTA_QEMU_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("rust-ota")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/rust-ota")))
            .ok_or("no place for downloads: set ROTA_QEMU_CACHE")?;
        Cache::at(place)
    }

    /// At `place`, which is made.
    pub fn at(place: PathBuf) -> Outcome<Cache> {
        fs::create_dir_all(&place).map_err(|error| format!("cannot make {}: {error}", place.display()))?;
        Ok(Cache { place })
    }

    /// Where it is.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The directory that `make` fills, from the cache if this very recipe was followed before.
    pub fn recipe(&self, name: &str, recipe: &str, make: impl FnOnce(&Path) -> Outcome) -> Outcome<PathBuf> {
        let directory = self.place.join(format!("{name}-{}", hash(recipe)));
        // Two processes may want the same.
        let lock = self.place.join("lock");
        let lock = File::create(&lock).map_err(|error| format!("cannot make {}: {error}", lock.display()))?;
        lock.lock_exclusive().map_err(|error| format!("cannot lock the cache: {error}"))?;
        if !directory.is_dir() {
            println!("making {name}: {}", recipe.lines().nth(1).unwrap_or_default());
            // Complete or not there.
            let unfinished = self.place.join(format!("{name}-unfinished"));
            let _ = fs::remove_dir_all(&unfinished);
            fs::create_dir_all(&unfinished).map_err(|error| format!("{}: {error}", unfinished.display()))?;
            make(&unfinished)?;
            fs::rename(&unfinished, &directory)
                .map_err(|error| format!("cannot keep {}: {error}", directory.display()))?;
        }
        Ok(directory)
    }
}

/// Sixteen digits are enough to tell recipes apart.
pub fn hash(recipe: &str) -> String {
    hex(&Sha256::digest(recipe.as_bytes())[..8])
}

/// The SHA-256 of `bytes`, as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_followed_once_and_never_kept_half() {
        let folder = std::env::temp_dir().join(format!("xtask-cache-{}", std::process::id()));
        let cache = Cache::at(folder.clone()).unwrap();
        let failed = cache.recipe("thing", "1", |directory| {
            fs::write(directory.join("half"), "").unwrap();
            Err("the power failed".into())
        });
        assert_eq!(failed, Err("the power failed".into()));
        let made = cache.recipe("thing", "1", |directory| {
            assert!(!directory.join("half").exists());
            fs::write(directory.join("whole"), "").map_err(|error| error.to_string())
        });
        assert!(made.clone().unwrap().join("whole").is_file());
        assert_eq!(cache.recipe("thing", "1", |_| Err("made again".into())), made);
        assert!(cache.recipe("thing", "2", |_| Err("another".into())).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_hash_is_that_of_sha256sum() {
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hash(""), "e3b0c44298fc1c14");
    }
}
