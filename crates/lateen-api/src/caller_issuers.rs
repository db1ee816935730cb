//! The file that names OpenID Connect issuers whose tokens callers of the certificate authority and of discovery may show.
//!
//! An entry has the fields of Istio's `JWTRule`, as far as they mean something here (so the text of istiod's `JWT_RULE` is one),
//! and says which claims name the workload.

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Severity, code};
use crate::mistakes::Mistakes;
use crate::yaml::{self, Node, Positions};

/// The file as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CallerIssuers {
    pub issuers: Vec<CallerIssuer>,
}

/// An issuer of tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CallerIssuer {
    /// `iss` of its tokens, to the letter. Without other keys: where discovery asks for them (OpenID Connect Discovery 1.0).
    pub issuer: String,
    /// One of them must be in a token; empty: `istio-ca`.
    pub audiences: Vec<String>,
    /// Where its keys are.
    #[serde(alias = "jwks_uri")]
    pub jwks_uri: String,
    /// Its keys.
    pub jwks: String,
    /// A file with its keys, which is read anew as keys are fetched anew.
    pub jwks_file: String,
    /// A file with the certificates, PEM, that its server may have, beside those of the public authorities.
    pub ca_file: String,
    /// The claim with the service account: its name, or a JSON pointer. Empty: tokens are Kubernetes' own.
    pub service_account_claim: String,
    /// The claim with the namespace. Empty: the one namespace that is listed.
    pub namespace_claim: String,
    /// For workloads of which namespaces it may speak. Empty: of all, which is only for Kubernetes' tokens.
    pub namespaces: Vec<String>,
    /// Kubernetes' tokens may be bound to pods that do not run in this mesh's own cluster.
    pub foreign_pods: bool,
}

/// Reads the file.
pub fn parse(file: &str, text: &str) -> (CallerIssuers, Vec<Diagnostic>) {
    let refused = |(line, column): (u32, u32), message: String| {
        let found = diagnostic(file, code::SYNTAX, (line, column), "", message);
        (CallerIssuers::default(), vec![found])
    };
    if text.len() > crate::parse::MAX_TEXT {
        return refused((0, 0), format!("the text has {} bytes, too many for a list of issuers", text.len()));
    }
    let mut documents = yaml::documents(text);
    match (documents.len(), documents.pop()) {
        (1, Some(Ok(node))) => read(file, &node),
        (1, Some(Err(error))) => refused((error.line, error.column), format!("not YAML: {}", error.message)),
        (count, _) => refused((0, 0), format!("expected one document with `issuers`, found {count}")),
    }
}

fn read(file: &str, node: &Node) -> (CallerIssuers, Vec<Diagnostic>) {
    let positions = Positions::of(node);
    let mut mistakes = Mistakes::default();
    let read: CallerIssuers = mistakes.read(node, "");
    if read.issuers.is_empty() && mistakes.is_empty() {
        mistakes.add(code::INVALID, "issuers".to_owned(), "no issuer is named".to_owned(), None);
    }
    for (index, issuer) in read.issuers.iter().enumerate() {
        let is_known = read.issuers[..index].iter().any(|other| other.issuer == issuer.issuer);
        let twice = is_known.then(|| ("issuer", "the issuer is named twice".to_owned()));
        for (field, message) in problems(issuer).into_iter().chain(twice) {
            mistakes.add(code::INVALID, format!("issuers[{index}].{field}"), message, None);
        }
    }
    let tell = |mistake: crate::mistakes::Mistake| {
        let at = positions.nearest(&mistake.field).unwrap_or_default();
        let found = diagnostic(file, mistake.code, at, &mistake.field, mistake.message);
        Diagnostic { help: mistake.help, ..found }
    };
    (read, mistakes.into_list().into_iter().map(tell).collect())
}

/// What is wrong with an issuer, by field.
fn problems(issuer: &CallerIssuer) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    let mut complain = |wrong: bool, field: &'static str, message: &str| {
        if wrong {
            out.push((field, message.to_owned()));
        }
    };
    complain(issuer.issuer.is_empty(), "issuer", "the issuer's name (`iss`) is expected");
    complain(issuer.audiences.iter().any(String::is_empty), "audiences", "an audience is empty");
    complain(issuer.namespaces.iter().any(String::is_empty), "namespaces", "a namespace is empty");
    let keys = [&issuer.jwks_uri, &issuer.jwks, &issuer.jwks_file];
    let named = keys.iter().filter(|field| !field.is_empty()).count();
    complain(named > 1, "jwksUri", "only one of `jwksUri`, `jwks` and `jwksFile` may be set");
    let place = match (named, issuer.jwks_uri.is_empty()) {
        (0, _) => &issuer.issuer,
        (_, false) => &issuer.jwks_uri,
        _ => "",
    };
    let field = if named == 0 { "issuer" } else { "jwksUri" };
    let is_fetched = !place.is_empty();
    complain(
        is_fetched && !place.starts_with("https://"),
        field,
        "keys are fetched by https only; otherwise say them in `jwks` or `jwksFile`",
    );
    complain(!is_fetched && !issuer.ca_file.is_empty(), "caFile", "nothing is fetched from a server");
    if issuer.service_account_claim.is_empty() {
        complain(!issuer.namespace_claim.is_empty(), "namespaceClaim", "goes with `serviceAccountClaim`");
    } else {
        complain(issuer.foreign_pods, "foreignPods", "is for Kubernetes' tokens, which have no `serviceAccountClaim`");
        let one = issuer.namespaces.len() == 1;
        complain(
            issuer.namespaces.is_empty() || (issuer.namespace_claim.is_empty() && !one),
            "namespaces",
            "the namespaces that the issuer may speak for are expected; exactly one without `namespaceClaim`",
        );
    }
    out
}

fn diagnostic(file: &str, code: &str, (line, column): (u32, u32), field: &str, message: String) -> Diagnostic {
    Diagnostic {
        code: code.to_owned(),
        severity: Severity::Error,
        object: None,
        file: file.to_owned(),
        line,
        column,
        field: field.to_owned(),
        message,
        help: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_entry_and_the_text_of_istiods_jwt_rule_are_read() {
        let text = "\
issuers:
- {\"issuer\":\"https://a.test\",\"audiences\":[\"istio-ca\"],\"jwks_uri\":\"https://a.test/keys\"}
- issuer: https://b.test
  caFile: /ca.pem
  namespaces: [ci]
  serviceAccountClaim: /job/name
- {issuer: b, jwksFile: /keys.json, foreignPods: true}
";
        let (read, found) = parse("f.yaml", text);
        assert_eq!(found, []);
        assert_eq!(read.issuers[0].jwks_uri, "https://a.test/keys");
        assert_eq!((&*read.issuers[1].ca_file, &*read.issuers[1].service_account_claim), ("/ca.pem", "/job/name"));
        assert!(read.issuers[2].foreign_pods);
    }

    #[test]
    fn mistakes_are_told_by_field_and_line() {
        for (text, field, line, part) in [
            ("", "", 0, "found 0"),
            ("issuers: [", "", 1, "not YAML"),
            ("issuers: []", "issuers", 1, "no issuer"),
            ("issuer: x", "issuer", 1, "unknown field"),
            ("issuers:\n- {audiences: [a], jwks: x}", "issuers[0].issuer", 2, "name"),
            ("issuers:\n- issuer: http://a.test", "issuers[0].issuer", 2, "https only"),
            ("issuers:\n- issuer: a\n  jwksUri: http://a.test", "issuers[0].jwksUri", 3, "https only"),
            ("issuers:\n- issuer: a\n  jwks: x\n  jwksFile: y", "issuers[0].jwksUri", 2, "only one of"),
            ("issuers:\n- issuer: a\n  jwks: x\n  caFile: y", "issuers[0].caFile", 4, "nothing is fetched"),
            ("issuers:\n- issuer: a\n  jwks: x\n  jwkz: y", "issuers[0].jwkz", 4, "did you mean"),
            ("issuers:\n- {issuer: a, jwks: x}\n- {issuer: a, jwks: x}", "issuers[1].issuer", 3, "twice"),
            ("issuers:\n- issuer: a\n  jwks: x\n  namespaceClaim: n", "issuers[0].namespaceClaim", 4, "goes with"),
            ("issuers:\n- issuer: a\n  jwks: x\n  serviceAccountClaim: n", "issuers[0].namespaces", 2, "exactly one"),
        ] {
            let (_, found) = parse("f.yaml", text);
            let [one] = found.as_slice() else { panic!("{text}: {found:#?}") };
            assert_eq!((one.field.as_str(), one.line), (field, line), "{text}: {one}");
            assert!(one.message.contains(part) || one.help.as_ref().is_some_and(|help| help.contains(part)), "{one}");
        }
    }
}
