//! What tests came to: for people, and in JUnit's form for machines.

use std::fmt::Write as _;

use crate::runtime::paint::{ERROR, FAINT, GOOD, PLAIN};

/// One test or invariant.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) name: String,
    pub(super) file: String,
    pub(super) line: u64,
    /// What is not as it should be; empty: nothing.
    pub(super) wrong: Vec<String>,
    /// What is to be known of one that passed.
    pub(super) note: String,
}

pub(super) fn tell(verdicts: &[Verdict]) {
    for verdict in verdicts {
        let place = format!("{FAINT}{}:{}{PLAIN}", verdict.file, verdict.line);
        if verdict.wrong.is_empty() {
            let note = if verdict.note.is_empty() { String::new() } else { format!(" {FAINT}{}{PLAIN}", verdict.note) };
            anstream::println!("{GOOD}✓{PLAIN} {}{note}", verdict.name);
        } else {
            anstream::println!("{ERROR}✗{PLAIN} {} {place}", verdict.name);
            for wrong in &verdict.wrong {
                anstream::println!("  {wrong}");
            }
        }
    }
    let failed = verdicts.iter().filter(|verdict| !verdict.wrong.is_empty()).count();
    anstream::println!("\n{} passed, {failed} failed", verdicts.len() - failed);
}

/// As Jenkins and others read it.
pub(super) fn junit(verdicts: &[Verdict]) -> String {
    let failed = verdicts.iter().filter(|verdict| !verdict.wrong.is_empty()).count();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"lateen test\" tests=\"{}\" failures=\"{failed}\">\n",
        verdicts.len()
    );
    for verdict in verdicts {
        let (name, file) = (escaped(&verdict.name), escaped(&verdict.file));
        // Writing into a String cannot fail.
        let _ =
            write!(xml, "  <testcase name=\"{name}\" classname=\"{file}\" file=\"{file}\" line=\"{}\"", verdict.line);
        if verdict.wrong.is_empty() {
            xml.push_str("/>\n");
        } else {
            let text = escaped(&verdict.wrong.join("\n"));
            let _ = write!(
                xml,
                ">\n    <failure message=\"{}\">{text}</failure>\n  </testcase>\n",
                escaped(&verdict.wrong[0])
            );
        }
    }
    xml + "</testsuite>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
