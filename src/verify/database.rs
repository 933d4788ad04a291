//! The checks that look into the database.

use std::collections::BTreeMap;
use std::future::ready;

use rollbackd_core::baseline::TableName;

use super::Context;
use crate::config::model::IntegrityPolicy;

pub(super) async fn tables(_context: Context<'_>) -> Result<String, String> {
    ready(Err("the check `tables` is not connected".to_owned())).await
}

pub(super) async fn integrity(
    _context: Context<'_>,
    _default: IntegrityPolicy,
    _tables: &BTreeMap<TableName, IntegrityPolicy>,
) -> Result<String, String> {
    ready(Err("the check `integrity` is not connected".to_owned())).await
}

pub(super) async fn sql(_context: Context<'_>, _query: &str) -> Result<String, String> {
    ready(Err("the check `sql` is not connected".to_owned())).await
}
