//! The driver in virtual time: whole windows between a journal that can fail and a world that can hang.

mod journal;
mod outside;
mod stage;

mod clocks;
mod deliveries;
mod load;
mod outages;
mod requests;
mod shutdown;
pub(crate) mod simulation;
mod windows;
