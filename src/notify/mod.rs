//! Stand-in, to be replaced by the sender itself.

use rollbackd_core::notice::Notice;

use crate::config::model::Config;

/// Every label that `attempted` can be called with.
pub const FAILURES: [&str; 2] = ["connect", "other"];

/// Sends notices.
#[derive(Debug)]
pub struct Sender;

impl Sender {
    /// Makes a sender.
    pub fn new(config: &Config) -> Result<Self, String> {
        Err(format!("{}: the notice part is not here yet", config.name))
    }

    /// Delivers one notice on one channel.
    pub async fn deliver(
        &self,
        notice: &Notice,
        channel: &str,
        attempted: impl Fn(Option<&str>),
    ) -> Result<(), String> {
        attempted(None);
        std::future::ready(Err(format!("{} {channel}: the notice part is not here yet", notice.contact))).await
    }
}
