//! The whole program in front of real parts: the executable itself, a PostgreSQL cluster, an SMTP server, HTTP
//! receivers and an application that breaks. Each module is a subject; `stage` is what they play on.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod demo;
mod endings;
mod faults;
mod full;
mod gates;
mod judging;
mod life;
mod migrations;
mod node;
mod operators;
mod page;
mod plan;
mod refusals;
mod replay;
mod restore;
mod reverse;
mod scripts;
mod soak;
mod sql;
mod stage;
mod tables;
mod undoing;
