//! Configuration: TOML with spans → a checked [`Config`](model::Config), all problems at once.

pub mod model;

use std::fmt;
use std::path::Path;

/// Stand-in: a checked configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: model::Config,
    /// What is odd about it.
    pub warnings: Problems,
}

/// Stand-in: what is wrong.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Stand-in: reads a configuration.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    Err(Problems(vec![format!("{}: the configuration part is not here yet", path.display())]))
}

impl model::Config {
    /// Stand-in: what decisions need of it.
    pub fn plan(&self, host: &str) -> rollbackd_core::plan::Plan {
        let _ = host;
        std::unreachable!("stand-in: a configuration cannot be loaded here")
    }
}
