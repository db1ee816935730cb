//! Where findings are collected, with the names of those who find them.

use lateen_api::diagnostic::code::DUPLICATE;
use lateen_api::{Diagnostic, Object, Origin, Severity};

use crate::Finding;
use crate::catalog;
use crate::document::Document;

/// Findings so far.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
    /// How many of them come from parsing and the mesh.
    pub(crate) of_mesh: usize,
    /// Who is looking now.
    pub(crate) analyzer: &'static str,
}

impl Report {
    /// Reports something about a field of an object.
    pub(crate) fn add(&mut self, document: &Document, code: &str, field: &str, message: impl Into<String>) {
        self.add_with_help(document, code, field, message, None);
    }

    pub(crate) fn add_with_help(
        &mut self,
        document: &Document,
        code: &str,
        field: &str,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        // A finding that is dropped because of a typing error would be missed by nobody.
        let entry = catalog::find(code).expect("every code that a check gives is in the catalogue");
        let subject = document.subject();
        // What the mesh has shown already is not told twice.
        let is_same = |finding: &&mut Finding| {
            let Diagnostic { code, object, field: known, .. } = &finding.diagnostic;
            *code == entry.code
                && object.as_ref() == Some(&subject)
                && (known.starts_with(field) || field.starts_with(known.as_str()))
        };
        if let Some(same) = self.findings[..self.of_mesh].iter_mut().find(is_same) {
            if !same.analyzers.contains(&self.analyzer) {
                same.analyzers.push(self.analyzer);
            }
            return;
        }
        let (line, column) = document.position_of(field);
        let diagnostic = Diagnostic {
            code: entry.code.to_owned(),
            severity: entry.severity,
            object: Some(subject),
            file: document.file.to_string(),
            line,
            column,
            field: field.to_owned(),
            message: message.into(),
            help,
        };
        self.findings.push(Finding { diagnostic, name: entry.name, analyzers: vec![self.analyzer] });
    }

    /// A finding of parsing or validation, which Istio's schema analyzers say of each kind.
    pub(crate) fn parsed(&mut self, diagnostic: Diagnostic) {
        let analyzer = schema_analyzer(diagnostic.object.as_ref().map_or("", |object| &object.kind));
        self.found(diagnostic, vec![analyzer]);
    }

    pub(crate) fn found(&mut self, diagnostic: Diagnostic, analyzers: Vec<&'static str>) {
        let name = catalog::find(&diagnostic.code).map_or("", |entry| entry.name);
        self.findings.push(Finding { diagnostic, name, analyzers });
    }

    /// An object that stands twice.
    pub(crate) fn twice(&mut self, object: &Object, before: &Origin) {
        let origin = object.origin();
        let diagnostic = Diagnostic {
            code: DUPLICATE.to_owned(),
            severity: Severity::Error,
            object: Some(object.key().into()),
            file: origin.file.to_string(),
            line: origin.line,
            column: 1,
            field: String::new(),
            message: format!("this object stands twice, also at {}:{}", before.file, before.line),
            help: Some("remove one of them, or give it another name".to_owned()),
        };
        self.found(diagnostic, vec!["schema.ValidationAnalyzer"]);
    }
}

/// The name of the analyzer that validates a kind.
fn schema_analyzer(kind: &str) -> &'static str {
    const KINDS: [(&str, &str); 13] = [
        ("AuthorizationPolicy", "schema.ValidationAnalyzer.AuthorizationPolicy"),
        ("DestinationRule", "schema.ValidationAnalyzer.DestinationRule"),
        ("EnvoyFilter", "schema.ValidationAnalyzer.EnvoyFilter"),
        ("Gateway", "schema.ValidationAnalyzer.Gateway"),
        ("PeerAuthentication", "schema.ValidationAnalyzer.PeerAuthentication"),
        ("ProxyConfig", "schema.ValidationAnalyzer.ProxyConfig"),
        ("RequestAuthentication", "schema.ValidationAnalyzer.RequestAuthentication"),
        ("ServiceEntry", "schema.ValidationAnalyzer.ServiceEntry"),
        ("Sidecar", "schema.ValidationAnalyzer.Sidecar"),
        ("Telemetry", "schema.ValidationAnalyzer.Telemetry"),
        ("VirtualService", "schema.ValidationAnalyzer.VirtualService"),
        ("WorkloadEntry", "schema.ValidationAnalyzer.WorkloadEntry"),
        ("WorkloadGroup", "schema.ValidationAnalyzer.WorkloadGroup"),
    ];
    KINDS.iter().find(|(known, _)| *known == kind).map_or("schema.ValidationAnalyzer", |(_, name)| name)
}
