//! What the program writes about itself, to standard error: how much, by part of the program, and changed while it runs by
//! Envoy's `/logging`. Envoy's parts are others, and so are their names.

use std::fmt::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

/// Parts of the program, and where their events come from.
const PARTS: [(&str, &str); 11] = [
    ("admin", "lateen_proxy::admin"),
    ("cluster", "lateen_proxy::cluster"),
    ("config", "lateen_proxy::config"),
    ("http", "lateen_proxy::http"),
    ("identity", "lateen_proxy::identity"),
    ("listener", "lateen_proxy::listener"),
    ("overload", "lateen_proxy::overload"),
    ("telemetry", "lateen_proxy::telemetry"),
    ("tls", "lateen_proxy::tls"),
    ("upstream", "lateen_proxy::upstream"),
    ("xds", "lateen_xds"),
];

/// Everything else: start and end, libraries.
const MAIN: &str = "main";

/// Envoy's names, and the levels that stand for them.
const LEVELS: [(&str, LevelFilter); 7] = [
    ("trace", LevelFilter::TRACE),
    ("debug", LevelFilter::DEBUG),
    ("info", LevelFilter::INFO),
    ("warning", LevelFilter::WARN),
    ("error", LevelFilter::ERROR),
    ("critical", LevelFilter::ERROR),
    ("off", LevelFilter::OFF),
];

const USAGE: &str = "usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
levels: trace debug info warning error critical off
";

/// The program's own; none where something else than the program runs a proxy, such as a test.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    levels: Mutex<Levels>,
    filter: reload::Handle<Targets, Registry>,
}

/// Writes events from now on, to a level.
pub fn start(level: LevelFilter) {
    let levels = Levels::all(level);
    let (filter, handle) = reload::Layer::new(levels.targets());
    tracing_subscriber::registry().with(filter).with(fmt::layer().with_writer(std::io::stderr)).init();
    // There is one program, which starts once.
    let _ = LOG.set(Log { levels: Mutex::new(levels), filter: handle });
}

/// Changes levels as the parameters say; the levels after that, or what is wrong with the parameters.
pub(crate) fn change<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Result<String, String> {
    let log = LOG.get().ok_or("this program does not log by levels\n")?;
    let mut levels = log.levels.lock().unwrap_or_else(PoisonError::into_inner);
    let mut changed = levels.clone();
    changed.change(parameters)?;
    if changed != *levels {
        log.filter.reload(changed.targets()).map_err(|error| format!("error: {error}\n"))?;
        *levels = changed;
    }
    Ok(levels.shown())
}

/// The level of each part, in the order of `PARTS`, and of everything else.
#[derive(Clone, Debug, PartialEq)]
struct Levels([LevelFilter; PARTS.len()], LevelFilter);

impl Levels {
    fn all(level: LevelFilter) -> Self {
        Self([level; PARTS.len()], level)
    }

    fn targets(&self) -> Targets {
        let parts = PARTS.iter().zip(self.0).map(|((_, target), level)| (*target, level));
        Targets::new().with_default(self.1).with_targets(parts)
    }

    fn change<'a>(&mut self, parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), String> {
        let parameters: Vec<(&str, &str)> = parameters.collect();
        match parameters[..] {
            [] => {}
            [("level", level)] => *self = Self::all(known(level)?),
            [("paths", paths)] => {
                for path in paths.split(',') {
                    let path = path.split_once(':').filter(|(name, level)| !name.is_empty() && !level.is_empty());
                    let (name, level) = path.ok_or_else(|| wrong("empty logger name or empty logger level"))?;
                    self.set(name, known(level)?)?;
                }
            }
            [(name, level)] => self.set(name, known(level)?)?,
            _ => return Err(wrong("invalid number of parameters")),
        }
        Ok(())
    }

    fn set(&mut self, name: &str, level: LevelFilter) -> Result<(), String> {
        let part = PARTS.iter().zip(&mut self.0).find(|((part, _), _)| *part == name).map(|(_, level)| level);
        let part = part.or_else(|| (name == MAIN).then_some(&mut self.1));
        *part.ok_or_else(|| wrong("unknown logger name"))? = level;
        Ok(())
    }

    fn shown(&self) -> String {
        let mut out = "active loggers:\n".to_owned();
        let parts = PARTS.iter().zip(self.0).map(|((name, _), level)| (*name, level));
        for (name, level) in parts.chain([(MAIN, self.1)]) {
            let named = LEVELS.iter().find(|(_, known)| *known == level).map_or("off", |(name, _)| name);
            let _ = writeln!(out, "  {name}: {named}");
        }
        out
    }
}

/// In Envoy's words.
fn wrong(what: &str) -> String {
    format!("error: {what}\n\n{USAGE}")
}

fn known(level: &str) -> Result<LevelFilter, String> {
    let found = LEVELS.iter().find(|(name, _)| *name == level || (level, *name) == ("warn", "warning"));
    found.map(|(_, level)| *level).ok_or_else(|| wrong("unknown logger level"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(parameters: &[(&str, &str)]) -> Result<Levels, String> {
        let mut levels = Levels::all(LevelFilter::INFO);
        levels.change(parameters.iter().copied()).map(|()| levels)
    }

    #[test]
    fn levels_change_for_all_for_several_and_for_one() {
        let level =
            |levels: &Levels, target: &str, level: tracing::Level| levels.targets().would_enable(target, &level);
        let all = changed(&[("level", "debug")]).expect("it is known");
        assert!(level(&all, "lateen_proxy::http::request", tracing::Level::DEBUG));
        assert!(level(&all, "hyper", tracing::Level::DEBUG));
        let several = changed(&[("paths", "http:trace,main:off")]).expect("they are known");
        assert!(level(&several, "lateen_proxy::http::request", tracing::Level::TRACE));
        assert!(!level(&several, "lateen_proxy::tls", tracing::Level::DEBUG));
        assert!(!level(&several, "hyper", tracing::Level::ERROR));
        let one = changed(&[("xds", "warning")]).expect("it is known");
        assert!(!level(&one, "lateen_xds::client", tracing::Level::INFO));
        assert!(one.shown().starts_with("active loggers:\n  admin: info\n"), "{}", one.shown());
        assert!(one.shown().ends_with("  xds: warning\n  main: info\n"), "{}", one.shown());
    }

    #[test]
    fn what_nobody_knows_changes_nothing_and_is_told() {
        for (parameters, complaint) in [
            (&[("level", "loud")][..], "error: unknown logger level\n"),
            (&[("paths", "http:debug,nothing:debug")], "error: unknown logger name\n"),
            (&[("paths", "http")], "error: empty logger name or empty logger level\n"),
            (&[("paths", ":debug")], "error: empty logger name or empty logger level\n"),
            (&[("http", "debug"), ("tls", "debug")], "error: invalid number of parameters\n"),
        ] {
            let found = changed(parameters).expect_err("it is wrong");
            assert!(found.starts_with(complaint) && found.ends_with(USAGE), "{found}");
        }
    }
}
