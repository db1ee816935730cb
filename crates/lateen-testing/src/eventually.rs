//! Waiting on state, never on time.

use std::time::Duration;

use tokio::time::Instant;

/// How long anything in a test may take. Only a test that fails ever waits this long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `condition` gives a value.
///
/// # Panics
/// When it has not after [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not after {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for `work`.
///
/// # Panics
/// When it is not done after [`PATIENCE`].
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("not after {PATIENCE:?}: {what}"))
}
