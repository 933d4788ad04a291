//! rollbackd guards live PostgreSQL migrations: backup and baseline first, then it watches, and when the
//! application breaks it stops traffic, rolls back, proves the recovery and tells people.
//!
//! What is decided is in [`rollbackd_core`]; this crate does it. Dependencies run one way:
//! `main → cli → driver → adapters → core`.

pub mod alarm;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crash;
pub mod demo;
pub mod driver;
pub mod frozen;
#[cfg(test)]
mod fuzz;
pub mod gate;
pub mod heartbeat;
pub mod journal;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod postgres;
pub mod preflight;
pub mod preview;
pub mod process;
pub mod purge;
pub mod rung;
pub mod runtime;
pub mod samples;
pub mod server;
pub mod signal;
pub mod systemd;
pub mod undo;
pub mod user;
pub mod verify;
