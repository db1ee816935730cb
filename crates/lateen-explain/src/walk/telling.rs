//! A leg while it is told.

use lateen_engine::metadata::DynamicMetadata;

use crate::journey::{Fault, Forwarding, Leg, Outcome, Party, Place, PolicyVerdict, Role, Stage, Step};

/// What was told of a leg so far.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) role: Role,
    pub(super) at: Party,
    pub(super) steps: Vec<Step>,
    pub(super) verdicts: Vec<PolicyVerdict>,
    pub(super) fault: Option<Fault>,
    pub(super) forwarding: Option<Forwarding>,
    /// What filters said, for those behind.
    pub(super) metadata: DynamicMetadata,
}

/// The step that was told last, to say more of.
pub(super) struct Last<'a>(&'a mut Step);

impl Telling {
    pub(super) fn new(role: Role, at: Party) -> Self {
        Self {
            role,
            at,
            steps: Vec::new(),
            verdicts: Vec::new(),
            fault: None,
            forwarding: None,
            metadata: DynamicMetadata::default(),
        }
    }

    pub(super) fn step(&mut self, stage: Stage, said: impl Into<String>) -> Last<'_> {
        tell(&mut self.steps, stage, said)
    }

    pub(super) fn end(self, outcome: Outcome) -> Leg {
        Leg {
            role: self.role,
            at: self.at,
            steps: self.steps,
            verdicts: self.verdicts,
            fault: self.fault,
            forwarding: self.forwarding,
            outcome,
        }
    }
}

/// Adds a step.
pub(super) fn tell(steps: &mut Vec<Step>, stage: Stage, said: impl Into<String>) -> Last<'_> {
    let at = steps.len();
    steps.push(Step { stage, said: said.into(), notes: Vec::new(), places: Vec::new() });
    Last(&mut steps[at])
}

impl Last<'_> {
    pub(super) fn note(self, note: impl Into<String>) -> Self {
        self.0.notes.push(note.into());
        self
    }

    pub(super) fn at(self, places: impl IntoIterator<Item = Place>) -> Self {
        self.0.places.extend(places);
        self
    }
}
