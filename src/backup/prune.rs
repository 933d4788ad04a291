//! Keeps the newest backups and removes older ones: only directories that are named as ours and hold a manifest of
//! this configuration.

use std::path::{Path, PathBuf};

use super::manifest;

/// The start of a backup's name.
pub(super) const PREFIX: &str = "pre-migration-";

/// Whether this is how we name backups: the prefix, `YYYYMMDDTHHMMSSZ`, and perhaps a number.
pub(super) fn is_ours(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let (Some(date), Some("T"), Some(time), Some(rest)) =
        (rest.get(..8), rest.get(8..9), rest.get(9..15), rest.get(15..))
    else {
        return false;
    };
    let number = rest.strip_prefix("Z-");
    let ends = rest == "Z" || number.is_some_and(|number| !number.is_empty() && digits(number, number.len()));
    digits(date, 8) && digits(time, 6) && ends
}

/// Removes all but the newest `keep`, and never `newest`. Gives back what could not be removed. Blocks.
pub(super) fn prune(directory: &Path, plan: &str, keep: u32, newest: &Path) -> Vec<String> {
    let mut backups: Vec<(jiff::Timestamp, PathBuf)> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            // A link is not followed: what it leads to is somebody else's.
            if !entry.file_type().ok()?.is_dir() || !is_ours(entry.file_name().to_str()?) {
                return None;
            }
            let manifest = manifest::read(&entry.path()).filter(|manifest| manifest.plan == plan)?;
            Some((manifest.at, entry.path()))
        })
        .filter(|(_, path)| path != newest)
        .collect();
    backups.sort();
    let keep = usize::try_from(keep.max(1)).unwrap_or(usize::MAX) - 1;
    let surplus = backups.len().saturating_sub(keep);
    let mut left = Vec::new();
    for (_, path) in backups.into_iter().take(surplus) {
        // The manifest goes first: a half-removed backup must not look like one.
        let removed = std::fs::remove_file(path.join(manifest::NAME)).and_then(|()| std::fs::remove_dir_all(&path));
        if let Err(error) = removed {
            left.push(format!("{}: {error}", path.display()));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_ours() {
        for ours in ["pre-migration-20261122T020000Z", "pre-migration-20261122T020000Z-2"] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in [
            "pre-migration-",
            "pre-migration-20261122T020000Z.partial",
            "pre-migration-20261122T020000Z-",
            "pre-migration-2026ä122T020000Z",
            "pre-migration-20261122T020000Zx",
            "my-pre-migration-20261122T020000Z",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
