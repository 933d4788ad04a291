//! The state machine in a small world: whole windows, from the opening to the end.

mod outside;
mod setup;
mod story;
mod world;

mod clock;
mod crashes;
mod incidents;
mod ladders;
mod notices;
mod openings;
mod outbox;
mod properties;
mod windows;
