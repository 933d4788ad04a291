//! "Did you mean": the accepted word that a misspelt one is nearest to.

/// The nearest of the words, when it is near enough to be meant.
pub(super) fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let word = word.to_lowercase();
    words
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count().max(3)) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, left out, replaced or swapped with their neighbour to get from one word to the
/// other. Long words are as good as infinitely far away: nobody misspells that much, and the work stays small.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(65).collect(), b.chars().take(65).collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX - 1);
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (at(&above, j) + usize::from(x != y)).min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                least = least.min(at(&before, j - 1) + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    at(&above, b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_added_left_out_replaced_and_swapped_count_one_each() {
        for (a, b, expected) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("shema", "schema", 1),
            ("tiemout", "timeout", 1),
            ("abc", "", 3),
            ("ab", "cd", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let words = ["url", "schema", "connect_timeout", "lock_timeout"];
        assert_eq!(nearest("shcema", words), Some("schema"));
        assert_eq!(nearest("connection_timeout", words), Some("connect_timeout"));
        assert_eq!(nearest("password", words), None);
        assert_eq!(nearest(&"x".repeat(10_000), words), None);
    }
}
