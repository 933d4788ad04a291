//! Stub.

pub mod session;
