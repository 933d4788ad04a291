//! Stand-in.
pub mod catalog;
pub mod programs;
pub mod rights;
pub mod session;
