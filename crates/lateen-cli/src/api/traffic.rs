//! Live traffic through the API.

use anyhow::Context as _;
use lateen_control::traffic::view::Traffic;

use super::ControlPlane;
use super::events::Events;

/// Snapshots of live traffic, one a second.
pub(crate) struct Snapshots(Events);

impl ControlPlane {
    /// Of the last time of this length, such as `60s`.
    pub(crate) async fn traffic(&self, window: &str) -> anyhow::Result<Traffic> {
        self.get(&format!("/api/v1/traffic?window={window}")).await
    }

    /// The same every second.
    pub(crate) async fn follow_traffic(&self, window: &str) -> anyhow::Result<Snapshots> {
        Ok(Snapshots(self.events(&format!("/api/v1/traffic/stream?window={window}")).await?))
    }
}

impl Snapshots {
    /// None when the control plane has gone away.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Traffic>> {
        while let Some(event) = self.0.next().await? {
            if event.name == "traffic" {
                return serde_json::from_str(&event.data).map(Some).context("the control plane's word of traffic");
            }
        }
        Ok(None)
    }
}
