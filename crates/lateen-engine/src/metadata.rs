//! What filters say of a request to those behind them, to the choice of its route and to the log: Envoy's dynamic metadata. What a
//! route says of itself has the same form.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::Metadata;

use crate::config::metadata::{self, Value};

/// Of one request. Filters write under their own names; a request that none writes about carries nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DynamicMetadata(BTreeMap<String, Fields>);

/// What stands under one name: `google.protobuf.Struct`.
pub type Fields = BTreeMap<String, Value>;

impl DynamicMetadata {
    /// What a resource says of itself, but for what the control plane says of where it came from.
    pub(crate) fn of_resource(metadata: Option<&Metadata>) -> Self {
        let said = metadata.into_iter().flat_map(|metadata| &metadata.filter_metadata);
        let others = said.filter(|(name, _)| *name != metadata::ORIGIN);
        Self(others.map(|(name, fields)| (name.clone(), metadata::map(fields))).collect())
    }

    /// Of what is no request.
    pub fn none() -> &'static Self {
        static NONE: DynamicMetadata = DynamicMetadata(BTreeMap::new());
        &NONE
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds `fields` to those under `name`; a field that is there already is replaced.
    pub fn merge(&mut self, name: &str, fields: Fields) {
        match self.0.get_mut(name) {
            Some(known) => known.extend(fields),
            None => drop(self.0.insert(name.to_owned(), fields)),
        }
    }

    /// What stands under `name`.
    pub fn fields(&self, name: &str) -> Option<&Fields> {
        self.0.get(name)
    }

    /// The value at the end of a path of fields, which has one step at least.
    pub fn at(&self, name: &str, path: &[String]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.fields(name)?.get(first)?, |value, step| value.get(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_one_name_are_merged_and_found_by_their_path() {
        let mut metadata = DynamicMetadata::default();
        assert!(metadata.is_empty());
        let text = |text: &str| Value::String(text.to_owned());
        let inner = Fields::from([("b".to_owned(), text("deep"))]);
        metadata.merge("f", Fields::from([("a".to_owned(), Value::Struct(inner)), ("c".to_owned(), text("old"))]));
        metadata.merge("f", Fields::from([("c".to_owned(), text("new"))]));
        let path = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
        assert_eq!(metadata.at("f", &path(&["a", "b"])), Some(&text("deep")));
        assert_eq!(metadata.at("f", &path(&["c"])), Some(&text("new")));
        for (name, steps) in [("f", path(&["c", "d"])), ("f", path(&[])), ("g", path(&["c"]))] {
            assert_eq!(metadata.at(name, &steps), None, "{name} {steps:?}");
        }
    }
}
