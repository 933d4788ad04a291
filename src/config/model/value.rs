//! Values that are not shown whole, and commands.

use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// A value that is never shown. `Debug` prints `***`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a value out of sight.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A URL whose user part and query are never shown. `Display` and `Debug` print the rest.
#[derive(Clone)]
pub struct Address(Url);

impl Address {
    /// Takes a parsed URL.
    pub const fn new(url: Url) -> Self {
        Self(url)
    }

    /// The whole URL, secrets included, for the one place that connects.
    pub const fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.0.scheme())?;
        if let Some(host) = self.0.host_str() {
            f.write_str(host)?;
        }
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.0.path())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A command to run. Elements given by reference (`{ env = … }`) are masked when it is shown.
#[derive(Clone)]
pub struct Command {
    /// The program, looked up in `PATH` when it has no slash.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Program and arguments as they may be shown.
    pub shown: Vec<String>,
    /// The directory it runs in: the configuration file's.
    pub directory: PathBuf,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Command").field(&self.shown).finish()
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown.join(" "))
    }
}
