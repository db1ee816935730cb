//! Findings that somebody does not want to see: by annotation on the object, as in Istio, or by the caller.

use std::collections::HashMap;

use lateen_api::diagnostic::Subject;

use crate::Finding;
use crate::world::World;

/// `galley.istio.io/analyze-suppress: IST0103,IST0108`, or `*`.
const ANNOTATION: &str = "galley.istio.io/analyze-suppress";

/// Which findings are left out.
#[derive(Debug, Default)]
pub struct Suppressions {
    by_object: HashMap<Subject, Vec<String>>,
    rules: Vec<Rule>,
}

/// `IST0102=Namespace default`, as `istioctl analyze --suppress` takes it; the object may hold `*`, and the part from `=` on
/// may be left out.
#[derive(Debug)]
struct Rule {
    code: String,
    object: Option<String>,
}

impl Suppressions {
    pub(crate) fn of_annotations(world: &World) -> Self {
        let listed = |text: &str| text.split(',').map(|code| code.trim().to_owned()).collect();
        let by_object = world
            .documents()
            .filter_map(|document| Some((document.subject(), listed(document.annotations.get(ANNOTATION)?))))
            .collect();
        Self { by_object, rules: Vec::new() }
    }

    /// Rules that a caller gives.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn of_rules(rules: &[String]) -> Result<Self, String> {
        let rule = |text: &String| {
            let (code, object) = text.split_once('=').map_or((text.as_str(), None), |(code, rest)| (code, Some(rest)));
            if crate::catalog::find(code).is_none() {
                return Err(format!("`{code}` is no message code; `lateen explain` lists them"));
            }
            Ok(Rule { code: code.to_uppercase(), object: object.map(str::to_owned) })
        };
        Ok(Self { by_object: HashMap::new(), rules: rules.iter().map(rule).collect::<Result<_, _>>()? })
    }

    /// Takes out what is not wanted.
    pub fn apply(&self, findings: &mut Vec<Finding>) {
        findings.retain(|finding| !self.covers(finding));
    }

    fn covers(&self, finding: &Finding) -> bool {
        let code = &finding.diagnostic.code;
        let by_annotation = finding.diagnostic.object.as_ref().and_then(|object| self.by_object.get(object));
        let by_annotation =
            by_annotation.is_some_and(|codes| codes.iter().any(|listed| listed == "*" || listed == code));
        by_annotation || self.rules.iter().any(|rule| rule.covers(finding))
    }
}

impl Rule {
    fn covers(&self, finding: &Finding) -> bool {
        if self.code != finding.diagnostic.code {
            return false;
        }
        let (Some(wanted), Some(object)) = (&self.object, &finding.diagnostic.object) else {
            return self.object.is_none();
        };
        // `Kind name.namespace` is how istioctl names objects.
        let istio = match object.namespace.as_str() {
            "" => format!("{} {}", object.kind, object.name),
            namespace => format!("{} {}.{namespace}", object.kind, object.name),
        };
        like(wanted, &istio) || like(wanted, &object.to_string())
    }
}

/// Whether a text is what a pattern with `*` says.
fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else { return false };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn patterns_take_what_stands_between() {
        assert!(like("Namespace default", "Namespace default"));
        assert!(like("*", "Pod a.b") && like("Pod *", "Pod a.b") && like("*.b", "Pod a.b") && like("P*a*b", "Pod a.b"));
        assert!(!like("Pod", "Pod a.b") && !like("Pod *.c", "Pod a.b") && !like("Pod *x*b", "Pod a.b"));
    }
}
