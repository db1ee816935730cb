//! A finding as people read it: where, what, and the line itself with the place underlined.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lateen_api::Diagnostic;
use lateen_api::parse::MAX_TEXT;

use super::paint::{ERROR, FAINT, PLAIN, WARNING};

/// A longer line is shown without underlining: nobody could see what is meant.
const LONGEST_LINE: usize = 200;

/// A path or origin (`path:line`) as it is shown: from the current directory where it lies below that.
pub(crate) fn shown_path(path: &str) -> String {
    let below = std::env::current_dir()
        .ok()
        .and_then(|here| Path::new(path).strip_prefix(here).ok().map(|below| below.display().to_string()));
    below.filter(|below| !below.is_empty()).unwrap_or_else(|| path.to_owned())
}

/// The finding with its line, which is read from the file that it names.
pub(crate) fn told(finding: &Diagnostic) -> String {
    let small = fs::metadata(&finding.file).is_ok_and(|file| file.is_file() && file.len() <= MAX_TEXT as u64);
    let text = if small { fs::read_to_string(&finding.file).ok() } else { None };
    told_of(finding, text.as_deref())
}

/// The finding in one line.
pub(crate) fn headline(finding: &Diagnostic) -> String {
    Diagnostic { file: shown_path(&finding.file), help: None, ..finding.clone() }.to_string()
}

/// The finding with its line of a text.
pub(crate) fn told_of(finding: &Diagnostic, text: Option<&str>) -> String {
    let style = if finding.is_error() { ERROR } else { WARNING };
    let head = headline(finding);
    let mut told = match head.split_once(": ") {
        Some((place, what)) => format!("{place}: {style}{what}{PLAIN}"),
        None => head,
    };
    if let Some(line) = text.and_then(|text| text.lines().nth((finding.line as usize).checked_sub(1)?)) {
        // Writing into a String cannot fail.
        let _ = write!(told, "{}", underlined(finding, line));
    }
    if let Some(help) = &finding.help {
        let _ = write!(told, "\n  {help}");
    }
    told
}

fn underlined(finding: &Diagnostic, line: &str) -> String {
    let number = finding.line.to_string();
    let gap = " ".repeat(number.len());
    let line = line.replace('\t', " ");
    let line = line.trim_end();
    let mut shown = format!("\n  {FAINT}{number} |{PLAIN} {line}");
    let Some(start) = (finding.column as usize).checked_sub(1) else { return shown };
    if start >= line.chars().count() || line.len() > LONGEST_LINE {
        return shown;
    }
    let is_word = |letter: &char| letter.is_alphanumeric() || "-_./".contains(*letter);
    let length = line.chars().skip(start).take_while(is_word).count().max(1);
    let texts = [Some(&finding.message), finding.help.as_ref()];
    let meant = texts.into_iter().flatten().find_map(|text| text.split_once("did you mean `")?.1.split('`').next());
    let (blank, carets) = (" ".repeat(start), "^".repeat(length));
    let style = if finding.is_error() { ERROR } else { WARNING };
    let _ = write!(shown, "\n  {FAINT}{gap} |{PLAIN} {blank}{style}{carets} {}", meant.unwrap_or_default());
    format!("{}{PLAIN}", shown.trim_end())
}

#[cfg(test)]
mod tests {
    use lateen_api::{Environment, parse_documents, validate_in};

    use super::*;

    /// Without colours, as a file or a pipe gets it.
    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_typing_error_is_underlined_with_what_to_type() {
        let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec:\n  \
                    hosts: [reviews]\n  http:\n  - route:\n    - destination: {host: reviews}\n      wieght: 10\n";
        let parsed = parse_documents("rules/reviews.yaml", text, "default");
        assert_eq!(
            plain(&told_of(&parsed.diagnostics[0], Some(text))),
            "rules/reviews.yaml:9:7: error: unknown field `wieght` at spec.http[0].route[0], did you mean `weight`? \
             (VirtualService default/reviews, spec.http[0].route[0].wieght) [LAT0002]\n  \
             9 |       wieght: 10\n    |       ^^^^^^ weight"
        );
    }

    #[test]
    fn a_text_that_has_changed_meanwhile_does_no_harm() {
        let text = "apiVersion: v1\nkind: Sevice\nmetadata: {name: a}\n";
        let mut found = parse_documents("a.yaml", text, "default");
        found.diagnostics.extend(found.objects.iter().flat_map(|object| validate_in(object, Environment::Local)));
        let finding = &found.diagnostics[0];
        assert!(plain(&told_of(finding, Some(""))).starts_with("a.yaml:2:1: error: kind Sevice"));
        for text in ["\n\n", "\n\t\n", "\nä\n"] {
            assert!(plain(&told_of(finding, Some(text))).contains("\n  2 |"), "{text:?}");
        }
        assert!(plain(&told_of(finding, None)).starts_with("a.yaml:2:1: error: kind Sevice"));
    }
}
