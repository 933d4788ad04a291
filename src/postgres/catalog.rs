//! Stand-in.
/// Stand-in.
#[expect(clippy::unused_async, reason = "stand-in")]
pub async fn server_major(_: &()) -> Result<u32, String> {
    Ok(15)
}
