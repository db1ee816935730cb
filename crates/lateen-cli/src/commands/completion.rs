//! `lateen completion`: for bash, zsh, fish and others.

use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

pub(super) const HOW: &str = "\
bash: lateen completion bash > ~/.local/share/bash-completion/completions/lateen
zsh:  lateen completion zsh > \"${fpath[1]}/_lateen\"
fish: lateen completion fish > ~/.config/fish/completions/lateen.fish";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Cli::command(), "lateen", &mut script);
    anstream::print!("{}", String::from_utf8(script)?);
    Ok(ExitCode::SUCCESS)
}
