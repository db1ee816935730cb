//! How far the proxy is, in Envoy's words (`envoy.admin.v3.ServerInfo.State`).

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// No clusters yet.
    #[default]
    PreInitializing,
    /// No listeners yet, or some wait for what they refer to.
    Initializing,
    Live,
    Draining,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
        }
    }
}

/// The state, which only moves forward: a proxy that has been live once serves whatever it has.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle(watch::Sender<State>);

impl Lifecycle {
    pub(crate) fn state(&self) -> State {
        *self.0.borrow()
    }

    /// Waits until it is that far.
    pub(crate) async fn reached(&self, state: State) {
        // The sender is ours, so it is there.
        let _ = self.0.subscribe().wait_for(|current| *current >= state).await;
    }

    pub(crate) fn reach(&self, state: State) {
        self.0.send_if_modified(|current| {
            let further = state > *current;
            *current = (*current).max(state);
            further
        });
    }
}
