//! Stand-in.
use crate::config::model::Config;

/// Stand-in.
#[expect(clippy::unused_async, reason = "stand-in")]
pub async fn check(_: &(), _: &Config) -> Result<String, String> {
    Err("stand-in".into())
}
