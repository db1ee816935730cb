//! A stream of server-sent events (WHATWG HTML, "Server-sent events"), as the control plane sends them: one line of data each.

use anyhow::{Context as _, bail};
use bytes::Buf as _;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::body::Incoming;

use super::ControlPlane;

/// An event is never longer.
const MAX_EVENT: usize = 64 << 20;

/// The stream.
pub(crate) struct Events {
    body: Incoming,
    pending: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
}

impl ControlPlane {
    pub(super) async fn events(&self, path: &str) -> anyhow::Result<Events> {
        let response = self.send(Method::GET, path, Vec::new(), "application/json").await?;
        let status = response.status();
        if status != StatusCode::OK {
            let body = response.into_body().collect().await?.to_bytes();
            bail!("the control plane answers {status}: {}", super::message(&body));
        }
        Ok(Events { body: response.into_body(), pending: Vec::new() })
    }
}

impl Events {
    /// The next event; none when the stream is over.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|two| two == b"\n\n") {
                let text: Vec<u8> = self.pending.drain(..end + 2).collect();
                match parse(&String::from_utf8_lossy(&text)) {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(mut data) = frame.context("the stream of events")?.into_data() {
                while data.has_remaining() {
                    self.pending.extend_from_slice(data.chunk());
                    data.advance(data.chunk().len());
                }
            }
            if self.pending.len() > MAX_EVENT {
                bail!("an event is longer than {MAX_EVENT} bytes");
            }
        }
    }
}

/// None of what has no data, such as a comment that keeps the connection alive.
fn parse(text: &str) -> Option<Event> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    Some(Event { name: field("event").unwrap_or("message").to_owned(), data: field("data")?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_names_and_data() {
        let event = |name: &str, data: &str| Some(Event { name: name.to_owned(), data: data.to_owned() });
        assert_eq!(parse("event: traffic\nid: 7\ndata: {\"a\": 1}\n\n"), event("traffic", "{\"a\": 1}"));
        assert_eq!(parse("data: x\n\n"), event("message", "x"));
        assert_eq!(parse(": still here\n\n"), None);
    }
}
