//! A configuration's secrets, hidden in what others have written.
//!
//! Scripts, servers and checks may repeat what they were told, a script that prints its environment all of it. What
//! they say goes into the journal, and from there to everybody.

use std::fmt;
use std::sync::Arc;

use super::model::Secret;

/// Shorter values would riddle a text without hiding anything.
const SHORTEST: usize = 4;

/// Covers the secrets of one configuration. `Debug` shows none of them.
#[derive(Clone, Default)]
pub struct Veil(Arc<[Secret]>);

impl Veil {
    /// A veil over these values.
    pub(super) fn new(mut secrets: Vec<Secret>) -> Self {
        secrets.retain(|secret| secret.expose().len() >= SHORTEST);
        // One that is part of another must not leave the rest of it to be read.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        secrets.dedup_by(|one, other| one.expose() == other.expose());
        Self(secrets.into())
    }

    /// The text with `***` in the place of every secret.
    pub fn cover(&self, text: String) -> String {
        self.0
            .iter()
            .map(Secret::expose)
            .fold(text, |text, secret| if text.contains(secret) { text.replace(secret, "***") } else { text })
    }
}

impl fmt::Debug for Veil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Veil(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_covers_the_longest_first_and_leaves_short_words_alone() {
        let veil = Veil::new(["abcd", "abcdef", "no", "abcd"].map(Secret::new).into());
        assert_eq!(veil.cover("no abcdef, abcd!".to_owned()), "no ***, ***!");
        assert_eq!(format!("{veil:?}"), "Veil(***)");
    }
}
