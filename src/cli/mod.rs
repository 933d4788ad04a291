//! Stub.
pub mod demo;
