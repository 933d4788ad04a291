//! `rollbackd completions SHELL`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::output::Terminal;
use super::{Cli, Exit};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "rollbackd", &mut text);
    terminal.print(&String::from_utf8(text)?)?;
    Ok(Exit::Done)
}
