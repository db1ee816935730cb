//! Policies that do something else than they look like.

use serde_json::Value;

use crate::document::{Document, items, text, texts};
use crate::report::Report;
use crate::world::{SECURITY, World};

pub(super) fn check(world: &World, report: &mut Report) {
    for document in world.each(SECURITY, "AuthorizationPolicy") {
        denies_everything(document, report);
        for (rule, value) in items(&document.spec()["rules"]).iter().enumerate() {
            for (at, to) in items(&value["to"]).iter().enumerate() {
                for (field, list) in [("paths", &to["operation"]["paths"]), ("notPaths", &to["operation"]["notPaths"])]
                {
                    let field = format!("spec.rules[{rule}].to[{at}].operation.{field}");
                    paths(document, &field, list, world, report);
                }
            }
        }
    }
}

/// `spec: {}` is how one writes that everything is denied; a selector with an ALLOW without rules is hardly that.
fn denies_everything(document: &Document, report: &mut Report) {
    let spec = document.spec();
    let is_allow = matches!(text(&spec["action"]), "" | "ALLOW");
    let says_more = spec["selector"].is_object() || spec["action"].is_string() || spec["rules"].is_array();
    if is_allow && says_more && items(&spec["rules"]).is_empty() {
        let what = if spec["selector"].is_object() { "what it selects" } else { "its namespace" };
        let message = format!("an ALLOW without rules denies every request to {what}");
        let help =
            "write `rules: [{}]` to allow everything, or `action: DENY` with `rules: [{}]` to say that it is denied"
                .to_owned();
        report.add_with_help(document, "LAT0203", "spec", message, Some(help));
    }
}

/// Paths are compared after normalisation, which has taken away what these ask for.
fn paths(document: &Document, field: &str, list: &Value, world: &World, report: &mut Report) {
    let written = text(&world.mesh_config["pathNormalization"]["normalization"]);
    if written == "NONE" {
        return;
    }
    let merges = matches!(written, "MERGE_SLASHES" | "DECODE_AND_MERGE_SLASHES");
    for (index, path) in texts(list).enumerate() {
        let reason = if path.contains('#') || path.contains('?') {
            Some("a path ends before `?` and `#`")
        } else if path.contains("/../") || path.contains("/./") || path.ends_with("/..") || path.contains('\\') {
            Some("`.`, `..` and `\\` are resolved before paths are compared")
        } else if merges && path.contains("//") {
            Some("slashes are merged before paths are compared")
        } else if !path.is_empty() && !path.starts_with(['/', '*', '{']) {
            Some("a path begins with `/`")
        } else {
            None
        };
        if let Some(reason) = reason {
            let message = format!("no request has the path `{path}`: {reason}");
            report.add(document, "LAT0204", &format!("{field}[{index}]"), message);
        }
    }
}
