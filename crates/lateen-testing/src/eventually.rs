//! Waiting on state, never on time.

use std::time::Duration;

use tokio::time::Instant;

/// How long anything in a test may take. Only a test that fails ever waits this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

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

/// Waits until `condition` gives a value, where there is no runtime: in tests of whole programs, which take longer, too.
///
/// # Panics
/// When it has not after twice [`PATIENCE`].
#[track_caller]
pub fn eventually_blocking<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let patience = PATIENCE * 2;
    let deadline = std::time::Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(std::time::Instant::now() < deadline, "not after {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for `work`.
///
/// # Panics
/// When it is not done after [`PATIENCE`].
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("not after {PATIENCE:?}: {what}"))
}
