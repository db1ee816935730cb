//! The `lateen` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    lateen_cli::main()
}
