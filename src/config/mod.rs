//! Configuration: TOML with spans → a checked [`Config`](model::Config), all problems at once.

pub mod model;
