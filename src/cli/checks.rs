//! Checks as commands show them: `check --online` and `verify`.

use rollbackd_core::run::step::CheckResult;
use serde::Serialize;

use super::output::{self, NAMES, Paint};

/// One check: `{name, kind, passed, detail}`.
#[derive(Debug, Serialize)]
pub(super) struct CheckLine {
    name: String,
    kind: String,
    pub(super) passed: bool,
    detail: String,
}

impl From<&CheckResult> for CheckLine {
    fn from(check: &CheckResult) -> Self {
        Self { name: check.name.clone(), kind: check.kind.clone(), passed: check.passed, detail: check.detail.clone() }
    }
}

/// Checks in columns, and below them each failure in full.
pub(super) fn table(paint: Paint, checks: &[CheckLine]) -> String {
    let row = |check: &CheckLine| {
        let result = if check.passed { "passed" } else { "FAILED" };
        vec![check.name.clone(), result.to_owned(), check.detail.clone()]
    };
    let rows: Vec<Vec<String>> = checks.iter().map(row).collect();
    let mut text = output::table(paint, NAMES, &["CHECK", "RESULT", "DETAIL"], &rows);
    for check in checks.iter().filter(|check| !check.passed) {
        text.extend(["\n  ", &output::clean(&check.name), ":\n", &output::wrap(&check.detail, 4)]);
    }
    text
}
