//! `docs/compatibility.md`, from the table that validation and the tests read.

use std::fmt::Write as _;
use std::path::PathBuf;

use lateen_api::Severity;
use lateen_api::support::{GATEWAY_API, Row, Standing, TABLE};
use lateen_api::{mesh_config, proxy_settings};

use crate::root;

const HEAD: &str = "\
# Istio's API, field by field

What becomes of each field of Istio's kinds in this mesh. `cargo xtask docs` writes this page from the table in
`crates/lateen-api/src/support`; tests hold that table against Istio's own schema, so that no field is missing, and hold every
row to its word: what is honoured changes what proxies are sent (or what the named test shows), what is not is said to
whoever writes it.

- **honoured**: does what it does in Istio.
- **warned**: has no effect yet; whoever applies such an object is told, with file, line and field (LAT0005).
- **refused**: an object with it is not taken over, since without the field it would let through what it should stop, or since
  Istio itself refuses it.
- **n.a.**: has no effect in Istio either, which is said.

A path stands for what is under it, too; `{a,b}` is each of those, `[]` any entry, `*` any key. `{policy}` is a traffic policy:
`spec.trafficPolicy`, `spec.subsets[].trafficPolicy`, and `portLevelSettings[]` of either.
";

const GATEWAY_API_HEAD: &str = "
# The Gateway API, field by field

Of the standard channel, and of the experimental one what is read (docs/gateway-api.md). `UDPRoute` is not: no UDP goes through
the mesh.
";

/// Where the page is.
pub(crate) fn path() -> PathBuf {
    root().join("docs/compatibility.md")
}

/// The page.
pub(crate) fn page() -> String {
    let mut out = HEAD.to_owned();
    for (kind, rows) in TABLE {
        // Writing to a String does not fail.
        let _ = write!(out, "\n## {kind}\n\n| field | | |\n| --- | --- | --- |\n");
        for row in *rows {
            let _ = writeln!(out, "{}", line(row));
        }
    }
    out.push_str(GATEWAY_API_HEAD);
    for (kind, rows) in GATEWAY_API {
        let _ = write!(out, "\n## {kind} ({})\n\n| field | | |\n| --- | --- | --- |\n", kind.group());
        for row in *rows {
            let _ = writeln!(out, "{}", line(row));
        }
    }
    out.push_str("\n## MeshConfig\n\nThe file that `--mesh-config` names.\n\n| field | | |\n| --- | --- | --- |\n");
    for (fields, standing) in [(mesh_config::HONOURED, "honoured"), (mesh_config::IGNORED, "warned")] {
        for field in fields {
            let of = if *field == "defaultConfig" {
                let read = proxy_settings::FIELDS.map(|field| format!("`{field}`")).join(", ");
                format!("of it {read}; others are warned of")
            } else {
                String::new()
            };
            let _ = writeln!(out, "| `{field}` | {standing} | {of} |");
        }
    }
    out
}

fn line(row: &Row) -> String {
    let field = if row.path.is_empty() { "the whole kind".to_owned() } else { format!("`{}`", row.path) };
    let (standing, remark) = match &row.standing {
        Standing::Honoured { proof: None } => ("honoured", String::new()),
        Standing::Honoured { proof: Some(proof) } => ("honoured", format!("`{proof}`")),
        Standing::ForPeople => ("n.a.", "words for people".to_owned()),
        Standing::WithoutEffect(why) => ("n.a.", (*why).to_owned()),
        Standing::Refused(why) => ("refused", (*why).to_owned()),
        Standing::Gap(gap) => {
            let word = if gap.severity == Severity::Error { "refused" } else { "warned" };
            let of = if gap.of.is_empty() { String::new() } else { format!("{}: ", gap.of) };
            (word, format!("{of}{}", gap.instead))
        }
    };
    format!("| {field} | {standing} | {remark} |")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_what_the_table_says() {
        let written = std::fs::read_to_string(super::path()).unwrap_or_default();
        assert!(written == super::page(), "docs/compatibility.md is stale: `cargo xtask docs` writes it anew");
    }
}
