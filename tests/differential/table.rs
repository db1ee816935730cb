//! The tables of requests, and the list of differences that are accepted, each with its reason.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::certificates::Tls;
use crate::tokens::Token;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    pub(crate) requests: Vec<Row>,
    /// By the names under which rows have them: `TOKEN(name)`.
    #[serde(default)]
    tokens: BTreeMap<String, Token>,
}

/// One request.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Which listener of the config, by name.
    #[serde(default = "main_listener")]
    pub(crate) listener: String,
    /// The request as text: line ends become CRLF, and a last empty line ends the head. `\xNN` stands for a byte.
    pub(crate) send: String,
    /// Speak HTTP/2 with prior knowledge instead: `send` is then a plain HTTP/1.1 text that is translated.
    #[serde(default)]
    pub(crate) http2: bool,
    /// TLS below.
    #[serde(default)]
    pub(crate) tls: Option<Tls>,
    /// Neither HTTP nor a text that is made into it: these bytes are sent, and what comes back until the end is the body.
    #[serde(default)]
    pub(crate) raw: bool,
    /// Sent once the answer is there, to whomever the connection then leads; as many bytes must come back.
    #[serde(default)]
    pub(crate) then: Option<String>,
    /// The client goes away after so many milliseconds, without having got an answer.
    #[serde(default)]
    pub(crate) leaves_after_ms: Option<u64>,
    /// What comes back of `raw`; none if nothing does.
    #[serde(default)]
    pub(crate) bytes: Option<String>,
    /// What Envoy's access log says of it.
    #[serde(default)]
    pub(crate) log: Option<String>,
    /// So many spans come of it.
    #[serde(default)]
    pub(crate) spans: Option<usize>,
    /// The status that Envoy gives; none if it closes without an answer. So a row cannot pass for the wrong reason.
    pub(crate) status: Option<u16>,
    /// Sent so many times; then what share of it each host gets is compared instead of each request.
    #[serde(default)]
    pub(crate) repeat: Option<usize>,
    /// Whether it comes as far as the upstream is a race in both proxies: only the answer is compared.
    #[serde(default)]
    pub(crate) answer_only: bool,
}

fn main_listener() -> String {
    "main".to_owned()
}

impl Table {
    pub(crate) fn read(name: &str) -> Self {
        parse(&format!("requests/{name}.yaml"))
    }

    /// The filter chains of its configuration, or, where one has several virtual hosts, those.
    pub(crate) fn configs(name: &str) -> usize {
        fn count(value: &serde_json::Value) -> usize {
            match value {
                serde_json::Value::Object(fields) => {
                    let own = fields.get("filters").filter(|filters| filters.is_array()).map_or(0, |_| 1);
                    let hosts = fields.get("virtual_hosts").and_then(serde_json::Value::as_array);
                    own + hosts.map_or(0, |hosts| hosts.len() - 1) + fields.values().map(count).sum::<usize>()
                }
                serde_json::Value::Array(items) => items.iter().map(count).sum(),
                _ => 0,
            }
        }
        count(&parse(&format!("configs/{name}.yaml")))
    }

    /// The requests, with their own names and the tokens that they carry, in which any letters may stand.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let tokens: Vec<_> = self.tokens.iter().map(|(name, token)| (format!("TOKEN({name})"), token.make())).collect();
        let mut rows = self.requests.clone();
        for row in &mut rows {
            row.send = row.send.replace("ROW", &row.tag());
            for (name, token) in &tokens {
                row.send = row.send.replace(name, token);
            }
            assert!(!row.send.contains("TOKEN("), "{}: there is no such token", row.name);
        }
        rows
    }
}

impl Row {
    /// Whether somebody waits in it: an upstream before its answer, a client before it leaves.
    pub(crate) fn is_of_time(&self) -> bool {
        self.send.contains("x-ask-delay-ms") || self.leaves_after_ms.is_some()
    }

    /// Tells its requests from others' at the upstream.
    pub(crate) fn tag(&self) -> String {
        self.name.replace(|character: char| !character.is_ascii_alphanumeric(), "-")
    }
}

fn parse<T: serde::de::DeserializeOwned>(file: &str) -> T {
    let path = lateen_tests::root().join("tests/differential").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptedFile {
    accepted: Vec<AcceptedRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptedRow {
    table: String,
    /// A row's name, or `*`.
    row: String,
    /// The field that may differ, as the complaint names it, or `*`.
    field: String,
    /// Why it is right, or harmless, that we differ.
    reason: String,
}

/// `differences.yaml`: what may differ. An entry that no longer covers anything fails the test.
pub(crate) struct Accepted {
    rows: Vec<AcceptedRow>,
    used: RefCell<BTreeSet<usize>>,
}

impl Accepted {
    pub(crate) fn read() -> Self {
        let file: AcceptedFile = parse("differences.yaml");
        for row in &file.accepted {
            assert!(row.reason.len() > 20, "{} / {} / {}: give the reason", row.table, row.row, row.field);
        }
        Self { rows: file.accepted, used: RefCell::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn covers(&self, table: &str, row: &str, field: &str) -> bool {
        let found = self.rows.iter().position(|accepted| {
            let same = |pattern: &str, name: &str| pattern == "*" || pattern == name;
            accepted.table == table && same(&accepted.row, row) && same(&accepted.field, field)
        });
        self.used.borrow_mut().extend(found);
        found.is_some()
    }

    pub(crate) fn assert_used(&self, table: &str) {
        let used = self.used.borrow();
        for (index, row) in self.rows.iter().enumerate().filter(|(_, row)| row.table == table) {
            assert!(
                used.contains(&index),
                "{table} / {} / {}: no longer differs; take it off the list",
                row.row,
                row.field
            );
        }
    }
}
