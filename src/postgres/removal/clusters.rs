//! In which order tables can be dropped, and which of them only together.
//!
//! A table goes after those that refer to it. Tables that refer to each other in circles go in one statement, and so do
//! the parts of a partitioned table with it: from an archive they can only be made together.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Two tables of which one holds on to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tie {
    /// The table with the foreign key, or the one that inherits.
    pub(super) from: u32,
    /// The table that it refers to, or inherits from.
    pub(super) to: u32,
    /// Whether it inherits, or is a partition.
    pub(super) inherits: bool,
}

/// All of the tables, in groups that go together, in an order in which nothing that is left refers to what has gone.
pub(super) fn clusters(tables: &[u32], ties: &[Tie]) -> Vec<Vec<u32>> {
    let places: BTreeMap<u32, usize> = tables.iter().enumerate().map(|(place, oid)| (*oid, place)).collect();
    let of = families(tables.len(), ties, &places);
    let mut left = Graph::new(&of, ties, &places);
    let mut order: Vec<Vec<usize>> = Vec::new();
    loop {
        while let Some(free) = left.free.pop_first() {
            left.take(free);
            order.push(vec![free]);
        }
        let Some(circle) = left.circle() else { break };
        for family in &circle {
            left.take(*family);
        }
        order.push(circle.into_iter().collect());
    }
    let mut members: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for (oid, family) in tables.iter().zip(of) {
        members.entry(family).or_default().push(*oid);
    }
    let together =
        |families: &Vec<usize>| families.iter().filter_map(|family| members.get(family)).flatten().copied().collect();
    order.iter().map(together).collect()
}

/// The family of each table: those that inheritance ties together bear the place of the first of them.
fn families(count: usize, ties: &[Tie], places: &BTreeMap<u32, usize>) -> Vec<usize> {
    let mut kin: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for tie in ties.iter().filter(|tie| tie.inherits) {
        if let (Some(from), Some(to)) = (places.get(&tie.from), places.get(&tie.to)) {
            kin.entry(*from).or_default().push(*to);
            kin.entry(*to).or_default().push(*from);
        }
    }
    let mut of: BTreeMap<usize, usize> = BTreeMap::new();
    for first in 0..count {
        let mut waiting = vec![first];
        while let Some(table) = waiting.pop() {
            if let Entry::Vacant(unknown) = of.entry(table) {
                unknown.insert(first);
                waiting.extend(kin.get(&table).into_iter().flatten());
            }
        }
    }
    of.into_values().collect()
}

/// The families that are left, with the foreign keys between them.
struct Graph {
    left: BTreeSet<usize>,
    /// Those that nothing that is left refers to.
    free: BTreeSet<usize>,
    /// Which ones refer to it, and to which ones it refers.
    referring: BTreeMap<usize, BTreeSet<usize>>,
    referred: BTreeMap<usize, BTreeSet<usize>>,
}

impl Graph {
    fn new(of: &[usize], ties: &[Tie], places: &BTreeMap<u32, usize>) -> Self {
        let left: BTreeSet<usize> = of.iter().copied().collect();
        let family = |oid: u32| of.get(*places.get(&oid)?).copied();
        let mut graph = Self { free: left.clone(), left, referring: BTreeMap::new(), referred: BTreeMap::new() };
        for tie in ties {
            let (Some(from), Some(to)) = (family(tie.from), family(tie.to)) else { continue };
            if from != to {
                graph.referring.entry(to).or_default().insert(from);
                graph.referred.entry(from).or_default().insert(to);
                graph.free.remove(&to);
            }
        }
        graph
    }

    fn take(&mut self, family: usize) {
        self.left.remove(&family);
        self.free.remove(&family);
        for to in self.referred.remove(&family).unwrap_or_default() {
            let Some(referring) = self.referring.get_mut(&to) else { continue };
            referring.remove(&family);
            if referring.is_empty() && self.left.contains(&to) {
                self.free.insert(to);
            }
        }
    }

    /// A circle that nothing outside of it refers to; there is one when something is left and nothing is free.
    fn circle(&self) -> Option<BTreeSet<usize>> {
        let mut at = *self.left.first()?;
        let mut above = self.above(at);
        // Going up, what is above gets less, until it is the same for all of it.
        while let Some(higher) = above.iter().find(|family| !self.above(**family).contains(&at)) {
            at = *higher;
            above = self.above(at);
        }
        Some(above)
    }

    /// What refers to it, directly or through others, and itself.
    fn above(&self, family: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut waiting = vec![family];
        while let Some(next) = waiting.pop() {
            if found.insert(next) {
                waiting.extend(self.referring.get(&next).into_iter().flatten());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(from: u32, to: u32) -> Tie {
        Tie { from, to, inherits: false }
    }

    fn child(from: u32, to: u32) -> Tie {
        Tie { from, to, inherits: true }
    }

    #[test]
    fn what_refers_goes_before_what_is_referred_to() {
        assert_eq!(clusters(&[1, 2, 3], &[key(2, 1), key(3, 2)]), [[3], [2], [1]]);
        assert_eq!(
            clusters(&[1, 2], &[key(1, 1), key(2, 9), key(9, 2)]),
            [[1], [2]],
            "itself, and tables that are not ours"
        );
    }

    #[test]
    fn circles_and_families_go_together() {
        let all = clusters(&[1, 2, 3, 4], &[key(1, 2), key(2, 1), key(3, 1), key(1, 4)]);
        assert_eq!(all, [vec![3], vec![1, 2], vec![4]]);
        let all = clusters(&[1, 2, 3, 4], &[child(3, 1), child(4, 1), key(2, 3), key(2, 1), key(1, 1), key(3, 1)]);
        assert_eq!(all, [vec![2], vec![1, 3, 4]]);
        let two = clusters(&[1, 2, 3, 4], &[key(1, 2), key(2, 1), key(2, 3), key(3, 4), key(4, 3)]);
        assert_eq!(two, [[1, 2], [3, 4]]);
    }

    #[test]
    fn thousands_that_refer_to_one_are_thousands_of_groups() {
        let tables: Vec<u32> = (0..10_000).collect();
        let ties: Vec<Tie> = (1..10_000).map(|from| key(from, 0)).collect();
        let all = clusters(&tables, &ties);
        assert_eq!((all.len(), all.last()), (10_000, Some(&vec![0])));
    }
}
