//! `lateen token`: by which something that is no pod joins the mesh.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::StateOption;
use super::apply::running;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token that is good for one first certificate, which then renews itself.
    Create {
        /// Namespace of the identity.
        #[arg(short, long, default_value = "default")]
        namespace: String,
        /// Its service account.
        #[arg(short, long, value_name = "NAME")]
        service_account: String,
        /// How long the token may wait to be used: a number with s, m, h or d, up to 7d.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
        ttl: Duration,
        #[command(flatten)]
        state: StateOption,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Command::Create { namespace, service_account, ttl, state } = &arguments.command;
    let control_plane = running(state)?;
    let answer = super::block_on(control_plane.join_token(namespace, service_account, *ttl))?;
    let word = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    // The token alone on the output, for scripts.
    anstream::eprintln!("for {}, once, until {}", word("id"), word("expires"));
    anstream::println!("{}", word("token"));
    Ok(ExitCode::SUCCESS)
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let unit = text.chars().last().unwrap_or_default();
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err("a number with s, m, h or d is expected".to_owned()),
    };
    let number = text[..text.len() - 1].parse::<u64>().map_err(|error| error.to_string())?;
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(|| "that is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_a_unit() {
        assert_eq!(lifetime("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(lifetime("2d"), Ok(Duration::from_secs(172_800)));
        for text in ["", "5", "h", "1w", "-1h", "99999999999999999999d", "18446744073709551615d"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
