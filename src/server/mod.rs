//! Stub.

#[cfg(test)]
pub(crate) mod fixture;
