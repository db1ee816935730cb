//! A stream of changes to objects: one JSON value a line.

use anyhow::{Context as _, bail};
use bytes::Buf as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;

/// A line is never longer: an object as large as an API server takes, and some more.
const MAX_LINE: usize = 8 << 20;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// Added or modified.
    Set(Value),
    Deleted(Value),
    /// All objects that there were at the start have been told.
    Synced,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    object: Value,
}

/// The stream.
pub(crate) struct Watch {
    body: Incoming,
    pending: Vec<u8>,
}

impl Watch {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, pending: Vec::new() }
    }

    /// The next change; an error when the stream ends, after which the objects have to be read anew.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Change> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return parse(&line);
            }
            let Some(frame) = self.body.frame().await else { bail!("the control plane ended the stream of changes") };
            if let Ok(mut data) = frame.context("the stream of changes")?.into_data() {
                while data.has_remaining() {
                    self.pending.extend_from_slice(data.chunk());
                    data.advance(data.chunk().len());
                }
            }
            if self.pending.len() > MAX_LINE {
                bail!("a line of the stream of changes is longer than {MAX_LINE} bytes");
            }
        }
    }
}

fn parse(line: &[u8]) -> anyhow::Result<Change> {
    let line: Line = serde_json::from_slice(line).context("a line of the stream of changes")?;
    match line.kind.as_str() {
        "ADDED" | "MODIFIED" => Ok(Change::Set(line.object)),
        "DELETED" => Ok(Change::Deleted(line.object)),
        "SYNCED" => Ok(Change::Synced),
        other => bail!("a change of unknown type `{other}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_changes() {
        let set = parse(br#"{"type":"ADDED","revision":3,"object":{"kind":"Pod"}}"#).unwrap();
        assert_eq!(set, Change::Set(serde_json::json!({"kind": "Pod"})));
        assert_eq!(parse(br#"{"type":"SYNCED","revision":3}"#).unwrap(), Change::Synced);
        assert!(parse(br#"{"type":"BOOKMARK"}"#).is_err());
    }
}
