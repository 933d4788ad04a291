//! The whole story on this machine.

pub mod cluster;
