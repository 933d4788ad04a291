//! Stand-in.
/// Stand-in.
#[derive(Debug)]
pub struct Programs {
    /// Stand-in.
    pub version: String,
}

/// Stand-in.
#[expect(clippy::unused_async, reason = "stand-in")]
pub async fn find(_: u32) -> Result<Programs, String> {
    Err("stand-in".into())
}
