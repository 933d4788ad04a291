//! Stub.

pub mod script;
