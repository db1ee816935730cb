//! Who may see an object: `exportTo`.

use std::collections::BTreeSet;

/// A read `exportTo` list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ExportTo {
    everyone: bool,
    own_namespace: bool,
    namespaces: BTreeSet<String>,
}

impl ExportTo {
    /// Reads `.`, `*`, `~` and namespace names; an empty list means `default`.
    pub fn parse<'a>(list: &'a [String], default: &'a [String]) -> Self {
        let mut export_to = Self::default();
        for entry in if list.is_empty() { default } else { list } {
            match entry.as_str() {
                "*" => export_to.everyone = true,
                "." => export_to.own_namespace = true,
                // Nobody: adds nothing.
                "~" => {}
                namespace => {
                    export_to.namespaces.insert(namespace.to_owned());
                }
            }
        }
        export_to
    }

    /// Whether an object of `owner` is visible to proxies in `namespace`.
    pub fn reaches(&self, owner: &str, namespace: &str) -> bool {
        self.everyone || (self.own_namespace && owner == namespace) || self.namespaces.contains(namespace)
    }

    /// Whether there is a namespace that both reach.
    pub(crate) fn meets(&self, owner: &str, other: &Self, others_owner: &str) -> bool {
        let reaches_anyone = |list: &Self| list.everyone || list.own_namespace || !list.namespaces.is_empty();
        if self.everyone || other.everyone {
            return reaches_anyone(self) && reaches_anyone(other);
        }
        (self.own_namespace && other.reaches(others_owner, owner))
            || (other.own_namespace && self.reaches(owner, others_owner))
            || self.namespaces.iter().any(|namespace| other.reaches(others_owner, namespace))
    }

    /// Visible in its own namespace only.
    pub fn is_private(&self) -> bool {
        self.own_namespace && !self.everyone && self.namespaces.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export_to(list: &[&str]) -> ExportTo {
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        ExportTo::parse(&list, &["*".to_owned()])
    }

    #[test]
    fn export_to_says_who_sees_it() {
        for (list, namespace, seen) in [
            (&[][..], "b", true),
            (&["*"], "b", true),
            (&["."], "a", true),
            (&["."], "b", false),
            (&["b"], "b", true),
            (&["b"], "a", false),
            (&["b", "."], "a", true),
            (&["~"], "a", false),
        ] {
            assert_eq!(export_to(list).reaches("a", namespace), seen, "{list:?} {namespace}");
        }
        assert!(export_to(&["."]).is_private());
        assert!(!export_to(&["b"]).is_private());
    }
}
