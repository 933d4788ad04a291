//! Strings that are not written down but referred to: environment variables, files, systemd credentials.
//!
//! What is read from them may be secret, so nothing here ever puts a value into a message.

use std::path::Path;

use super::redact::quoted;
use super::section::Surroundings;

/// The longest file that a reference may name.
const LONGEST: u64 = 64 * 1024;

/// Where a referred string is read from.
pub(super) enum Source {
    /// `{ env = "NAME" }`.
    Environment,
    /// `{ file = "PATH" }`.
    File,
    /// `{ credential = "NAME" }`.
    Credential,
}

/// A string that was read, and how it may be spoken of.
pub(super) struct Found {
    pub(super) value: String,
    /// Such as `$NAME`.
    pub(super) shown: String,
}

/// Why a string could not be read, and the way out.
pub(super) struct Absent {
    pub(super) message: String,
    pub(super) help: String,
}

impl Source {
    /// The source with this key.
    pub(super) fn of(key: &str) -> Option<Self> {
        match key {
            "env" => Some(Self::Environment),
            "file" => Some(Self::File),
            "credential" => Some(Self::Credential),
            _ => None,
        }
    }

    /// Reads the string of this name.
    pub(super) fn read(&self, name: &str, surroundings: &Surroundings<'_>) -> Result<Found, Absent> {
        match self {
            Self::Environment => environment(name, surroundings),
            Self::File => file(&surroundings.directory.join(name), format!("file {}", quoted(name))),
            Self::Credential => credential(name, surroundings),
        }
    }
}

fn environment(name: &str, surroundings: &Surroundings<'_>) -> Result<Found, Absent> {
    let usable = !name.is_empty() && !name.contains(['=', '\0']);
    let Some(value) = usable.then(|| (surroundings.variable)(name)).flatten() else {
        return Err(Absent {
            message: format!("the environment variable {} is not set", quoted(name)),
            help: "set it for rollbackd (and for `rollbackd check`), or name another".to_owned(),
        });
    };
    match value.into_string() {
        Ok(value) => Ok(Found { value, shown: format!("${name}") }),
        Err(_) => Err(Absent {
            message: format!("the environment variable {} is not UTF-8", quoted(name)),
            help: "accepted: UTF-8 text".to_owned(),
        }),
    }
}

fn credential(name: &str, surroundings: &Surroundings<'_>) -> Result<Found, Absent> {
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
        return Err(Absent {
            message: format!("{} is not the name of a credential", quoted(name)),
            help: "accepted: the name in LoadCredential= of the systemd unit".to_owned(),
        });
    }
    let Some(directory) = (surroundings.variable)("CREDENTIALS_DIRECTORY") else {
        return Err(Absent {
            message: format!("the credential {} is not there: CREDENTIALS_DIRECTORY is not set", quoted(name)),
            help: format!("run under systemd with LoadCredential={name}:PATH, or use {{ file = … }} or {{ env = … }}"),
        });
    };
    file(&Path::new(&directory).join(name), format!("credential {}", quoted(name)))
}

fn file(path: &Path, shown: String) -> Result<Found, Absent> {
    let failed = |reason: &str| Absent {
        message: format!("the file {} cannot be read: {reason}", quoted(&path.display().to_string())),
        help: "accepted: a file of UTF-8 text that rollbackd may read, at most 64 KiB".to_owned(),
    };
    let about = std::fs::metadata(path).map_err(|error| failed(&reason(&error)))?;
    if !about.is_file() {
        return Err(failed("it is not a file"));
    }
    if about.len() > LONGEST {
        return Err(failed("it is longer than 64 KiB"));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(&reason(&error)))?;
    let Ok(mut value) = String::from_utf8(bytes) else { return Err(failed("it is not UTF-8")) };
    // Editors and `echo` end a file with one newline that nobody means.
    if value.ends_with('\n') {
        value.pop();
        if value.ends_with('\r') {
            value.pop();
        }
    }
    Ok(Found { value, shown })
}

/// An I/O error without the number that the operating system adds.
pub(super) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split_once(" (os error").map_or(text.clone(), |(reason, _)| reason.to_owned())
}
