//! Stand-in.
use crate::config::model::Database;

/// Stand-in.
#[derive(Debug)]
pub struct Session(());

impl Session {
    /// Stand-in.
    #[expect(clippy::unused_async, reason = "stand-in")]
    pub async fn connect(_: &Database) -> Result<Self, String> {
        Err("the database cannot be reached: stand-in".into())
    }

    /// Stand-in.
    pub const fn client(&self) -> &() {
        &self.0
    }
}
