//! `lateen proxy-config log`: how much a proxy writes about itself, by part.

use clap::Args;

use super::{Misuse, StateOption};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The pod: NAME or NAME.NAMESPACE, the beginning of exactly one name, or deploy/NAME for a pod of a Deployment.
    pod: String,
    /// The pod's namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// A level for all parts (trace, debug, info, warning, error, critical, off), or PART:LEVEL[,PART:LEVEL…].
    #[arg(long, value_name = "LEVELS")]
    level: Option<String>,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<String> {
    let path = path(arguments.level.as_deref())?;
    let Arguments { pod, namespace, state, .. } = arguments;
    Ok(super::ask(pod, namespace.as_deref(), state, "POST", &path)?.trim_end().to_owned())
}

fn path(levels: Option<&str>) -> anyhow::Result<String> {
    let Some(levels) = levels else { return Ok("/logging".to_owned()) };
    // They go into a URL as they are; the proxy knows which there are.
    let plain = |c: char| c.is_ascii_alphanumeric() || "_:,".contains(c);
    if levels.is_empty() || !levels.chars().all(plain) {
        return Err(Misuse::of(format!("--level {levels}: say LEVEL, or PART:LEVEL[,PART:LEVEL…]")));
    }
    let name = if levels.contains(':') { "paths" } else { "level" };
    Ok(format!("/logging?{name}={levels}"))
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn levels_are_of_all_parts_or_of_some() {
        let of = |levels| path(levels).expect("it is well said");
        assert_eq!(of(None), "/logging");
        assert_eq!(of(Some("debug")), "/logging?level=debug");
        assert_eq!(of(Some("http:debug,tls:trace")), "/logging?paths=http:debug,tls:trace");
        for wrong in ["", "debug&x=y", "a b"] {
            assert!(path(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
