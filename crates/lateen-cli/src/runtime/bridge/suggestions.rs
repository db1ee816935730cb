//! Commands worth pasting into another terminal when everything is ready. They work from any directory there.

use std::fs;
use std::path::{Path, PathBuf};

use super::Options;
use crate::runtime::images::find_in;
use crate::runtime::state_dir::StateDir;

/// Files in this folder beside the input may ask to be tried.
const FOLDER: &str = "routing";
/// How a file's first line does so: `# Try 1: Half of the calls fail.`
const TRY: &str = "# Try ";
/// A second line may say what shows the effect, as arguments of `lateen`: `# See: exec deploy/a -- curl http://b/`
const SEE: &str = "# See: ";
/// More are not read by anybody.
const MOST: usize = 4;

/// What to print, line by line.
pub(super) fn lines(options: &Options, app: &str) -> Vec<String> {
    let call = Call::new(options);
    let mut lines = Vec::new();
    for Sample { path, about, see, .. } in samples(options) {
        lines.push(format!("# {about}"));
        lines.push(call.of("apply --wait", &format!("-f {}", quoted(&path.display().to_string()))));
        if let Some((command, rest)) = see.as_deref().and_then(|see| see.split_once(' ')) {
            lines.push(call.of(command, rest));
        }
    }
    if lines.is_empty() {
        lines.push(format!("curl -i {app}"));
        lines.push(call.of("logs", "-n istio-system istio-ingressgateway"));
    }
    lines.push("# Pods and problems; the end".to_owned());
    lines.extend([call.of("status", ""), call.of("down", "")]);
    lines
}

/// A file with rules that asks to be tried.
#[derive(Debug, PartialEq, Eq)]
struct Sample {
    position: u32,
    path: PathBuf,
    about: String,
    see: Option<String>,
}

fn samples(options: &Options) -> Vec<Sample> {
    let folder = |input: &PathBuf| match fs::canonicalize(input) {
        Ok(input) if input.is_dir() => Some(input.join(FOLDER)),
        Ok(input) => input.parent().map(|parent| parent.join(FOLDER)),
        Err(_) => None,
    };
    let mut folders: Vec<PathBuf> = options.inputs.iter().filter_map(folder).collect();
    folders.sort();
    folders.dedup();
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().filter_map(Result::ok);
    let mut samples: Vec<Sample> = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "yaml"))
        .filter_map(|path| sample(&path, &fs::read_to_string(&path).ok()?))
        .collect();
    samples.sort_by(|one, other| (one.position, &one.path).cmp(&(other.position, &other.path)));
    samples.truncate(MOST);
    samples
}

fn sample(path: &Path, text: &str) -> Option<Sample> {
    let mut lines = text.lines();
    let (position, about) = lines.next()?.strip_prefix(TRY)?.split_once(": ")?;
    let see = lines.next().and_then(|line| line.strip_prefix(SEE)).map(str::to_owned);
    Some(Sample { position: position.parse().ok()?, path: path.to_owned(), about: about.to_owned(), see })
}

/// How this program is to be called for this mesh.
struct Call {
    program: String,
    state_option: String,
}

impl Call {
    fn new(options: &Options) -> Self {
        let is_default = StateDir::choose(None).is_ok_and(|chosen| chosen.root() == options.state.root());
        // Another terminal need not have LATEEN_STATE_DIR set.
        let state_option =
            if is_default { String::new() } else { format!(" --state-dir {}", quoted(&options.state.to_string())) };
        Self { program: program(), state_option }
    }

    fn of(&self, command: &str, rest: &str) -> String {
        let space = if rest.is_empty() { "" } else { " " };
        format!("{} {command}{}{space}{rest}", self.program, self.state_option)
    }
}

/// `lateen` if that is what a shell would run, else the whole path.
fn program() -> String {
    let Ok(this) = std::env::current_exe() else { return "lateen".to_owned() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = find_in("lateen", std::env::split_paths(&path)).and_then(|found| found.canonicalize().ok());
    if found.is_some_and(|found| found == this) { "lateen".to_owned() } else { quoted(&this.display().to_string()) }
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./+:@%=,".contains(&byte);
    if word.bytes().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_in_its_first_lines_what_it_shows() {
        let path = Path::new("/s/routing/a.yaml");
        let text = "# Try 2: Half of the calls fail.\n# See: exec deploy/a -- curl http://b/\nkind: X\n";
        let found = sample(path, text).unwrap();
        assert_eq!((found.position, found.about.as_str()), (2, "Half of the calls fail."));
        assert_eq!(found.see.as_deref(), Some("exec deploy/a -- curl http://b/"));
        assert_eq!(sample(path, "# Try 1: It.\nkind: X\n").unwrap().see, None);
        for other in ["", "kind: X", "# Try it: now", "# Half of the calls fail."] {
            assert_eq!(sample(path, other), None, "{other}");
        }
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("/home/me/lateen"), "/home/me/lateen");
        assert_eq!(quoted("/my files/it's"), r"'/my files/it'\''s'");
    }
}
