//! What a proxy holds that has started and has nothing to do.

use lateen_testing::eventually::eventually;

use crate::proxy::Setup;

/// In KiB; without optimisation, as the tests are built, it is about two thirds.
const MOST: u64 = 10_000;

#[tokio::test]
async fn what_only_starting_needed_is_given_back() {
    let mut proxy = Setup::default().start(&[]).await;
    let settled = async || Some(proxy.resident_kib()).filter(|resident| *resident < MOST);
    eventually(&format!("less than {MOST} KiB are resident"), settled).await;
    // All of the program is still there.
    assert_eq!(proxy.admin("/ready").await.body, "LIVE\n");
    proxy.terminate();
    proxy.ended().await;
}
