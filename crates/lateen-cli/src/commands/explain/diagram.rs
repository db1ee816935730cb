//! A journey as a sequence diagram (<https://mermaid.js.org/syntax/sequenceDiagram.html>).

use std::fmt::Write as _;

use lateen_explain::journey::{Journey, Leg, Outcome, Party, Stage};

pub(super) fn of(journey: &Journey) -> String {
    let mut diagram = Diagram { parties: Vec::new(), lines: String::new() };
    let from = diagram.party(&journey.from);
    let first = diagram.party(&journey.first.at);
    if first != from {
        diagram.say(&format!("{from}->>{first}: {}", text(&journey.request)));
    }
    if first == from {
        diagram.say(&format!("Note over {from}: {}", text(&journey.request)));
    }
    diagram.leg(&journey.first, &first);
    for ending in &journey.results {
        let what = match (&ending.served_by, ending.status) {
            (Some(who), _) => format!("the answer of {who}"),
            (None, Some(status)) => format!("{status}: {}", ending.why),
            (None, None) => format!("no answer: {}", ending.why),
        };
        diagram.say(&format!("Note over {from}: {:.0} % {}", ending.share * 100.0, text(&what)));
    }
    let mut out = "sequenceDiagram\n".to_owned();
    for (id, name) in &diagram.parties {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "    participant {id} as {name}");
    }
    out + diagram.lines.trim_end()
}

struct Diagram {
    /// How they are called in the diagram, and by what name they are shown.
    parties: Vec<(String, String)>,
    lines: String,
}

impl Diagram {
    fn party(&mut self, party: &Party) -> String {
        let name = text(&party.to_string());
        if let Some((id, _)) = self.parties.iter().find(|(_, known)| *known == name) {
            return id.clone();
        }
        let id = format!("p{}", self.parties.len());
        self.parties.push((id.clone(), name));
        id
    }

    fn say(&mut self, line: &str) {
        let _ = writeln!(self.lines, "    {line}");
    }

    fn leg(&mut self, leg: &Leg, id: &str) {
        let told = [Stage::Route, Stage::Policy, Stage::Fault];
        for step in leg.steps.iter().filter(|step| told.contains(&step.stage)) {
            self.say(&format!("Note over {id}: {} {}", step.stage.word(), text(&step.said)));
        }
        match &leg.outcome {
            Outcome::Sent { branches } => {
                for branch in branches {
                    for next in &branch.next {
                        let to = self.party(&next.leg.at);
                        let tls = branch.steps.iter().find(|step| step.stage == Stage::Tls);
                        let how = tls.map(|step| format!(", {}", text(&step.said))).unwrap_or_default();
                        let share = branch.share * next.share * 100.0;
                        self.say(&format!("{id}->>{to}: {share:.0} %{how}"));
                        self.leg(&next.leg, &to);
                    }
                    if let Some(failure) = &branch.failure {
                        self.say(&format!("Note over {id}: {:.0} % {}", branch.share * 100.0, text(&failure.why)));
                    }
                }
            }
            Outcome::Answered(answer) => {
                self.say(&format!("Note over {id}: answers {}, {}", answer.status, text(&answer.why)));
            }
            Outcome::Closed { why, .. } => self.say(&format!("Note over {id}: closed, {}", text(why))),
            Outcome::Delivered { .. } | Outcome::Left { .. } => {}
        }
    }
}

/// Without what would end a line of the diagram.
fn text(said: &str) -> String {
    said.replace(';', ",").replace('#', "").replace('\n', " ")
}
