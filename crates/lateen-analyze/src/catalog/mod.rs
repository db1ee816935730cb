//! Every message code: its name, its level and what it means, for findings and for `lateen explain CODE`.

mod istio;
mod own;

use lateen_api::Severity;

/// A message code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// `IST0101`, as Istio numbers it, or `LAT…`.
    pub code: &'static str,
    /// Istio's identifier (`ReferencedResourceNotFound`).
    pub name: &'static str,
    pub severity: Severity,
    /// What is the matter, and what comes of it.
    pub meaning: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// Why it is never given here, for codes that speak of something that there is not.
    pub never: Option<&'static str>,
}

/// All codes, in the order of their numbers, Istio's first.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    istio::CODES.iter().chain(own::CODES)
}

/// A code, in any case.
pub fn find(code: &str) -> Option<&'static Entry> {
    all().find(|entry| entry.code.eq_ignore_ascii_case(code) || entry.name.eq_ignore_ascii_case(code))
}

const fn entry(
    code: &'static str,
    name: &'static str,
    severity: Severity,
    meaning: &'static str,
    remedy: &'static str,
) -> Entry {
    Entry { code, name, severity, meaning, remedy, never: None }
}

const fn unused(
    code: &'static str,
    name: &'static str,
    severity: Severity,
    meaning: &'static str,
    never: &'static str,
) -> Entry {
    Entry { code, name, severity, meaning, remedy: "", never: Some(never) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{all, find};

    #[test]
    fn codes_and_names_are_unique_and_every_code_says_what_to_do() {
        let codes: BTreeSet<&str> = all().map(|entry| entry.code).collect();
        assert_eq!(codes.len(), all().count());
        let names: BTreeSet<&str> = all().map(|entry| entry.name).collect();
        assert_eq!(names.len(), all().count());
        for entry in all() {
            assert!(!entry.meaning.is_empty(), "{}", entry.code);
            assert!(entry.remedy.is_empty() == entry.never.is_some(), "{}", entry.code);
        }
    }

    #[test]
    fn a_code_is_found_by_its_number_and_by_its_name() {
        assert_eq!(find("ist0101").map(|entry| entry.name), Some("ReferencedResourceNotFound"));
        assert_eq!(find("PodMissingProxy").map(|entry| entry.code), Some("IST0103"));
        assert_eq!(find("IST9999"), None);
    }
}
