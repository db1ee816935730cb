//! Requests while they pass, through the API.

use anyhow::Context as _;
use lateen_control::traffic::view::Request;
use serde::Deserialize;

use super::ControlPlane;
use super::events::Events;

/// What is seen.
pub(crate) enum Seen {
    Request(Box<Request>),
    /// So many more.
    Lost(u64),
}

pub(crate) struct Requests(Events);

impl ControlPlane {
    /// `query`: what to watch, as the API has it.
    pub(crate) async fn tap(&self, query: &str) -> anyhow::Result<Requests> {
        Ok(Requests(self.events(&format!("/api/v1/tap?{query}")).await?))
    }
}

impl Requests {
    /// None when the control plane has gone away.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Seen>> {
        #[derive(Deserialize)]
        struct Lost {
            count: u64,
        }
        while let Some(event) = self.0.next().await? {
            let of = || format!("the control plane's word of a request: {}", event.data);
            match event.name.as_str() {
                "request" => return serde_json::from_str(&event.data).map(Seen::Request).map(Some).with_context(of),
                "lost" => {
                    let lost: Lost = serde_json::from_str(&event.data).with_context(of)?;
                    return Ok(Some(Seen::Lost(lost.count)));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}
