//! Stand-in.
use jiff::Timestamp;
/// x
pub fn window_id(plan: &str, at: Timestamp) -> String {
    format!("{plan}-{}", at.strftime("%Y%m%dT%H%M%SZ"))
}
/// x
pub fn quarantine_schema(at: Timestamp) -> String {
    format!("rollbackd_{}", at.strftime("%Y%m%dt%H%M%Sz"))
}
