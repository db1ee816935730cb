//! A journey on a terminal: a line for each step, with the object behind it beside or below.

use std::fmt::Write as _;

use lateen_explain::journey::{Branch, Ending, Journey, Leg, Outcome, Place, Role, Step};

use crate::commands::exec::terminal;
use crate::runtime::excerpt::shown_path;
use crate::runtime::paint::{ERROR, FAINT, GOOD, PLAIN, STRONG, WARNING};

/// Where nobody can say how wide the page is.
const USUAL_WIDTH: usize = 100;
const NARROWEST: usize = 60;
/// Wider lines are hard to read.
const WIDEST: usize = 140;
/// Room for what a step is about.
const LABEL: usize = 11;

pub(super) fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    terminal::width().or(columns).unwrap_or(USUAL_WIDTH).clamp(NARROWEST, WIDEST)
}

pub(super) fn of(journey: &Journey, width: usize) -> String {
    let mut page = Page { text: String::new(), width };
    page.wrapped("", &format!("{} from {}", journey.request, journey.from), STRONG);
    page.text.push('\n');
    page.leg("", &journey.first, &[]);
    page.text.push('\n');
    let who = if journey.from.namespace.is_empty() { "The client".to_owned() } else { journey.from.to_string() };
    page.wrapped("", &format!("{who} gets"), STRONG);
    for ending in &journey.results {
        page.ending(ending);
    }
    page.text.trim_end().to_owned()
}

struct Page {
    text: String,
    width: usize,
}

impl Page {
    /// `before`: what stands at the left of each line.
    fn leg(&mut self, before: &str, leg: &Leg, workloads: &[String]) {
        let others = match workloads.len() {
            0 | 1 => String::new(),
            2 => " and one more like it".to_owned(),
            many => format!(" and {} more like it", many - 1),
        };
        let does = match (leg.role, &leg.outcome) {
            (_, Outcome::Left { .. }) => "is beyond the mesh",
            (Role::Caller, _) => "asks",
            (Role::Gateway, _) => "is a gateway",
            (Role::Server, _) => "is asked",
        };
        let identity = if leg.at.identity.is_empty() { String::new() } else { format!(" ({})", leg.at.identity) };
        self.wrapped(before, &format!("▸ {}{others} {does}{identity}", leg.at), STRONG);
        let inner = format!("{before}  ");
        self.steps(&inner, &leg.steps);
        match &leg.outcome {
            Outcome::Answered(answer) => {
                let to = answer.location.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
                let flag = if answer.flag.is_empty() { String::new() } else { format!(" [{}]", answer.flag) };
                let style = if answer.status < 400 { GOOD } else { ERROR };
                let said = format!("{}{to}: {}{flag}", answer.status, answer.why);
                self.step(&inner, "answers", (&said, style), &answer.places);
            }
            Outcome::Closed { why, places } => self.step(&inner, "closed", (why, ERROR), places),
            Outcome::Sent { branches } => self.branches(&inner, branches),
            Outcome::Delivered { to } if leg.steps.is_empty() => {
                self.step(&inner, "app", (&format!("gets it at {to}"), GOOD), &[]);
            }
            Outcome::Delivered { .. } | Outcome::Left { .. } => {}
        }
    }

    fn steps(&mut self, before: &str, steps: &[Step]) {
        for step in steps {
            self.step(before, step.stage.word(), (&step.said, anstyle::Style::new()), &step.places);
            for note in &step.notes {
                self.hanging(before, "", note, FAINT);
            }
        }
    }

    fn branches(&mut self, before: &str, branches: &[Branch]) {
        for (number, branch) in branches.iter().enumerate() {
            let last = number + 1 == branches.len();
            let (head, inner) = match (branches.len(), last) {
                (1, _) => (String::new(), before.to_owned()),
                (_, false) => (format!("{before}├─ "), format!("{before}│  ")),
                (_, true) => (format!("{before}└─ "), format!("{before}   ")),
            };
            if branches.len() > 1 {
                self.wrapped(&head, &format!("{} of the requests", percent(branch.share)), STRONG);
            }
            self.steps(&inner, &branch.steps);
            if let Some(failure) = &branch.failure {
                let status = if failure.status > 0 { format!("{}: ", failure.status) } else { String::new() };
                self.step(&inner, "fails", (&format!("{status}{} [{}]", failure.why, failure.flag), ERROR), &[]);
            }
            for next in &branch.next {
                if branch.next.len() > 1 {
                    self.hanging(&inner, "", &format!("{} of these", percent(next.share)), FAINT);
                }
                self.leg(&inner, &next.leg, &next.workloads);
            }
        }
    }

    fn ending(&mut self, ending: &Ending) {
        let (style, said) = match (&ending.served_by, ending.status) {
            (Some(who), _) => (GOOD, format!("the answer of {who}")),
            (None, Some(status)) if status < 400 => (GOOD, format!("{status}: {}", ending.why)),
            (None, Some(status)) => (ERROR, format!("{status}: {}", ending.why)),
            (None, None) => (ERROR, format!("no answer: {}", ending.why)),
        };
        let to = ending.location.as_ref().map(|to| format!(", to {to}")).unwrap_or_default();
        self.hanging("  ", &percent(ending.share), &format!("{said}{to}"), style);
    }

    fn step(&mut self, before: &str, label: &str, (said, style): (&str, anstyle::Style), places: &[Place]) {
        let shown: Vec<String> = places.iter().map(shown).collect();
        let used = before.chars().count() + LABEL + said.chars().count();
        // Beside it, if there is room for all.
        let beside = shown.join(", ");
        if !beside.is_empty() && used + 3 + beside.chars().count() <= self.width {
            self.line(before, label, &format!("{style}{said}{PLAIN}   {FAINT}{beside}{PLAIN}"));
            return;
        }
        self.hanging(before, label, said, style);
        for place in &shown {
            self.hanging(before, "", place, FAINT);
        }
    }

    /// Under its label, however many lines it takes.
    fn hanging(&mut self, before: &str, label: &str, said: &str, style: anstyle::Style) {
        let room = self.width.saturating_sub(before.chars().count() + LABEL);
        for (number, line) in wrap(said, room).iter().enumerate() {
            let label = if number == 0 { label } else { "" };
            self.line(before, label, &format!("{style}{line}{PLAIN}"));
        }
    }

    fn line(&mut self, before: &str, label: &str, said: &str) {
        let style = match label {
            "closed" | "fails" => ERROR,
            "not taken" | "fault" => WARNING,
            _ => FAINT,
        };
        // Writing into a String cannot fail.
        let _ = writeln!(self.text, "{FAINT}{before}{PLAIN}{style}{label:LABEL$}{PLAIN}{said}");
    }

    fn wrapped(&mut self, before: &str, said: &str, style: anstyle::Style) {
        let indent = " ".repeat(if before.ends_with("─ ") { 0 } else { 2 });
        let room = self.width.saturating_sub(before.chars().count() + indent.len());
        for (number, line) in wrap(said, room).iter().enumerate() {
            let indent = if number == 0 { "" } else { &indent };
            let _ = writeln!(self.text, "{FAINT}{before}{PLAIN}{indent}{style}{line}{PLAIN}");
        }
    }
}

/// `VirtualService default/reviews (reviews.yaml:12)`.
fn shown(place: &Place) -> String {
    if place.file.is_empty() {
        place.to_string()
    } else {
        format!("{place} ({}:{})", shown_path(&place.file), place.line)
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.5 { "<1 %".to_owned() } else { format!("{percent:.0} %") }
}

/// Lines of so many columns at most, where words allow it.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is one from the beginning");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= columns {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_whole() {
        assert_eq!(wrap("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrap("abcdefgh i", 3), ["abcdefgh", "i"]);
        assert_eq!(wrap("", 3), [""]);
    }

    #[test]
    fn small_shares_are_not_nothing() {
        for (share, text) in [(1.0, "100 %"), (0.333_3, "33 %"), (0.001, "<1 %"), (0.0, "0 %")] {
            assert_eq!(percent(share), text);
        }
    }
}
