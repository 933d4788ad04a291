//! `[rollback]`; its gates are in [`gate`], its rungs in [`rung`].

use super::cross::Names;
use super::database::Ground;
use super::gate;
use super::model::Rollback;
use super::rung;
use super::scalar::{ANY, BOUND, seconds};
use super::section::Section;

/// Reads `[rollback]`. Also says how many rungs are written, usable or not.
pub(super) fn read(mut section: Section<'_>, ground: &Ground) -> (usize, Rollback) {
    let budget = section.or("budget", seconds(15 * 60), |value| value.duration(BOUND));
    let approve_always = section.or("approval", false, |value| value.choice(&[("none", false), ("always", true)], &[]));
    let repeat_page = section.or("repeat_page", seconds(15 * 60), |value| value.duration(BOUND));
    let grace = section.or("grace", seconds(10), |value| value.duration(ANY));
    let mut names = Names::of("gate");
    let gates = section.children("gate").into_iter().filter_map(|section| gate::read(section, &mut names)).collect();
    let written = section.children("rung");
    let count = written.len();
    let rungs = written.into_iter().filter_map(|one| rung::read(one, ground, budget)).collect();
    section.finish();
    (count, Rollback { budget, approve_always, repeat_page, grace, gates, rungs })
}
