//! Scripts and commands that would be started: they are there and executable.

use std::path::Path;

use rustix::fs::{Access, access};

use super::{Answer, together};
use crate::config::model::{Command, Config, Method};

/// What a file ends in that an interpreter is given.
const SCRIPT_ENDINGS: [&str; 14] =
    ["js", "mjs", "cjs", "ts", "mts", "py", "sh", "bash", "rb", "pl", "php", "sql", "jar", "lua"];

/// `script`: what every script rung would run.
pub(super) fn script(config: &Config) -> Answer {
    let commands = config.rollback.rungs.iter().filter_map(|rung| match &rung.method {
        Method::Script { command, .. } => Some(command),
        // A SQL file is read with the configuration.
        Method::Tables { .. } | Method::Sql { .. } => None,
    });
    together(commands.map(runnable), "no rung runs a script")
}

/// `command`: the migration.
pub(super) fn command(config: &Config) -> Answer {
    together(config.window.command.iter().map(runnable), "somebody else runs the migration")
}

/// The program is there, and so is each of its arguments that names a script.
pub(super) fn runnable(command: &Command) -> Answer {
    program(command)?;
    let shown = command.shown.iter().skip(1);
    for (place, (argument, shown)) in command.arguments.iter().zip(shown).enumerate() {
        // What is masked is not a script's name, and its value has no place in a message.
        if argument == shown && names_script(argument, place) && !command.directory.join(argument).is_file() {
            return Err(format!(
                "{argument}, which {} runs, is not in {}: put it there, or correct the command",
                command.program,
                command.directory.display()
            ));
        }
    }
    Ok(format!("{command} can be started"))
}

fn names_script(argument: &str, place: usize) -> bool {
    let path = Path::new(argument);
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    SCRIPT_ENDINGS.contains(&ending)
        && (argument.contains('/') || place == 0)
        && !argument.contains("://")
        && !argument.contains(char::is_whitespace)
        && !argument.starts_with('-')
}

fn program(command: &Command) -> Result<(), String> {
    let name = &command.program;
    if name.contains('/') {
        let path = command.directory.join(name);
        return match (path.is_file(), executable(&path)) {
            (true, true) => Ok(()),
            (true, false) => Err(format!("{} is not executable: run chmod +x on it", path.display())),
            (false, _) => Err(format!("{} does not exist: put it there, or correct the command", path.display())),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|directory| executable(&directory.join(name))) {
        Ok(())
    } else {
        Err(format!("{name} is not in this process's PATH: install it, or give its whole path"))
    }
}

fn executable(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::preflight::tests::command;

    #[test]
    fn a_script_in_the_configurations_directory_is_found() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("scripts")).unwrap();
        let missing = runnable(&command(root.path(), &["sh", "scripts/rollback.sh"])).unwrap_err();
        assert!(missing.starts_with("scripts/rollback.sh, which sh runs, is not in /"), "{missing}");

        std::fs::write(root.path().join("scripts/rollback.sh"), "").unwrap();
        let found = runnable(&command(root.path(), &["sh", "scripts/rollback.sh"])).unwrap();
        assert_eq!(found, "sh scripts/rollback.sh can be started");
    }

    #[test]
    fn a_program_must_be_there_and_executable() {
        let root = tempfile::tempdir().unwrap();
        let direct = command(root.path(), &["./rollback"]);
        assert!(runnable(&direct).unwrap_err().contains("does not exist"));
        let path = root.path().join("rollback");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        assert!(runnable(&direct).unwrap_err().contains("is not executable: run chmod +x on it"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        runnable(&direct).unwrap();

        let error = runnable(&command(root.path(), &["no-such-program-anywhere"])).unwrap_err();
        assert_eq!(error, "no-such-program-anywhere is not in this process's PATH: install it, or give its whole path");
    }

    #[test]
    fn other_arguments_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let words =
            ["sh", "-c", "run scripts/x.sh", "--file=a/b.sql", "https://shop.example/x.js", "out/log.txt", "x.sql"];
        runnable(&command(root.path(), &words)).unwrap();
    }

    #[test]
    fn a_masked_argument_is_never_said() {
        let root = tempfile::tempdir().unwrap();
        let mut masked = command(root.path(), &["sh", "secret/x.sh"]);
        masked.shown[1] = "***".into();
        assert_eq!(runnable(&masked).unwrap(), "sh *** can be started");
    }
}
