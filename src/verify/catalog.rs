//! Check `catalog`: what the catalog held before the migration is there, defined as it was.
//!
//! An object that is gone or changed fails the check, and so does a part that was added to something from before the
//! migration: a column, constraint, index, trigger or policy of an original table changes what that table does. An
//! object of its own that was added (a table, view, function, type) does not: whether it should be there is no question
//! of recovery. Protected schemas are left out. Only names are reported: a definition may hold secrets.

use rollbackd_core::baseline::{Baseline, Difference, Object, ObjectKind};
use rollbackd_core::words::counted;

use crate::config::model::Database;
use crate::postgres::pinned::Pinned;
use crate::postgres::{catalog, restored};

/// How many differences are named.
const NAMED: usize = 20;

/// Compares the catalog with the baseline's.
pub(crate) async fn check(pinned: &Pinned, database: &Database, baseline: Option<&Baseline>) -> Result<String, String> {
    let baseline = baseline.ok_or("no baseline was taken, so there is nothing to compare with")?;
    let before = &baseline.catalog;
    let protected = &database.protected_schemas;
    let held = before.objects.iter().filter(|object| !protected.contains(&object.id.schema)).count();
    // A schema and its owner are always there.
    let by_itself = |object: &&Object| {
        object.id.of.is_none() && !matches!(object.id.kind, ObjectKind::Schema | ObjectKind::Extension)
    };
    if !before.objects.iter().filter(by_itself).any(|object| !protected.contains(&object.id.schema)) {
        return Err("the baseline holds no object outside protected schemas, so nothing was compared".to_owned());
    }
    let session = pinned.session().await.map_err(|error| error.to_string())?;
    let now = catalog::read(session.client()).await.map_err(|failure| failure.to_string())?;
    let known = restored::known(session.client(), baseline).await.map_err(|failure| failure.to_string())?;
    judge(held, &known.catalog.difference(&now, protected))
}

fn judge(held: usize, difference: &Difference) -> Result<String, String> {
    let removed = difference.removed.iter().map(|id| format!("{id} is gone"));
    let changed = difference.changed.iter().map(|change| format!("{} is not as it was", change.id));
    let (parts, others): (Vec<_>, Vec<_>) = difference.added.iter().partition(|id| id.of.is_some());
    let added = parts.iter().map(|id| format!("{id} was added"));
    let renamed = difference.renamed.iter().map(|rename| format!("{} has another name", rename.from));
    let mut problems: Vec<String> = removed.chain(changed).chain(renamed).chain(added).collect();
    if problems.is_empty() {
        let beside = match others.len() {
            0 => String::new(),
            count => format!("; {} beside them, which are new, were not judged", counted(count, "object")),
        };
        return Ok(format!("{} as before{beside}", counted(held, "object")));
    }
    let more = problems.len().saturating_sub(NAMED);
    problems.truncate(NAMED);
    if more > 0 {
        problems.push(format!("and {}", counted(more, "further difference")));
    }
    Err(problems.join("; "))
}

#[cfg(test)]
mod tests;
