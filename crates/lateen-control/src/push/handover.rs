//! Takes handovers of PeerAuthentications ([`lateen_mesh::InForce::handed_on`]) from step to step, as proxies take them.
//!
//! A replica knows of its own proxies only: where clients hang on one and their servers on another, a step of the servers may
//! overtake the clients'.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Proxies, Pushed};
use crate::source::Source;
use crate::store::Note;

/// A proxy that is slower than this is left behind: what it is asked to protect matters more than its requests.
const PATIENCE: Duration = Duration::from_secs(10);

/// Until it is time to stop.
pub(crate) async fn follow(pushed: Pushed, proxies: Proxies, source: Arc<Source>, stop: CancellationToken) {
    let steps = async {
        let mut snapshots = pushed.watch();
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            match snapshot.mesh().handover() {
                Some(step) => {
                    let late = proxies.taken(snapshot.revision, PATIENCE).await;
                    if !late.is_empty() {
                        tracing::warn!(
                            ?late,
                            "peers change to or from mutual TLS without these proxies, which are slow"
                        );
                    }
                    let Some(revision) = source.note(Note::HandedOver(step)).await else { return };
                    if snapshots.wait_for(|snapshot| snapshot.revision >= revision).await.is_err() {
                        return;
                    }
                }
                None => {
                    if snapshots.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = steps => {}
        () = stop.cancelled() => {}
    }
}
