//! Every client against every upstream, with nothing between: the right one answers all, the wrong one is told from it.

use std::net::Ipv4Addr;

use serde_json::Value;
use tokio::net::TcpListener;

use super::{Run, drive};
use crate::Protocol;
use crate::pace::Pace;
use crate::tally::Tally;
use crate::upstream;

/// What so many requests on one connection come to.
fn exchange(client: Protocol, server: Protocol, requests: u64) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let run = against(server, Pace::counted(requests)).await;
        drive(&run, client, 3).await;
        run.tally.report(1.0, run.tally.so_far())
    })
}

async fn against(server: Protocol, pace: Pace) -> Run {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    tokio::task::spawn_local(upstream::answer(listener, server));
    let tally = Tally::default();
    tally.begin();
    Run { pace, tally, to, hosts: None }
}

#[test]
fn the_right_upstream_answers_everything() {
    for protocol in [Protocol::H1, Protocol::H2, Protocol::Grpc, Protocol::Echo, Protocol::Connect] {
        // More than the first window of an HTTP/2 connection holds.
        let report = exchange(protocol, protocol, 500);
        assert_eq!((&report["answers"], &report["bad"]), (&500.into(), &0.into()), "{protocol:?}: {report}");
        assert!(report["p50_us"].as_f64().unwrap() > 0.0, "{protocol:?}: {report}");
    }
}

#[test]
fn answers_of_another_kind_are_wrong() {
    for (client, server) in [
        (Protocol::H1, Protocol::Echo),
        (Protocol::H2, Protocol::H1),
        (Protocol::H2, Protocol::Echo),
        (Protocol::Grpc, Protocol::H2),
        (Protocol::Echo, Protocol::Bulk),
        (Protocol::Connect, Protocol::Bulk),
    ] {
        let report = exchange(client, server, 1);
        assert_eq!(report["answers"], 0, "{client:?} at {server:?}: {report}");
        assert_eq!(report["bad"], 1, "{client:?} at {server:?}: {report}");
    }
}

#[test]
fn a_page_is_no_grpc_answer() {
    let report = exchange(Protocol::H2, Protocol::Grpc, 1);
    assert_eq!((&report["answers"], &report["bad"]), (&0.into(), &1.into()), "{report}");
}

#[test]
fn a_stream_of_bytes_is_counted_until_it_is_enough() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let run = against(Protocol::Bulk, Pace::closed()).await;
        let enough = async {
            while run.tally.so_far().1 < 1_000_000 {
                tokio::task::yield_now().await;
            }
            run.pace.stop();
        };
        tokio::join!(drive(&run, Protocol::Bulk, 1), enough);
        assert_eq!(run.tally.report(1.0, (0, 0))["bad"], 0);
    });
}

#[test]
fn requests_fall_due_whether_or_not_anybody_is_free() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pace = Pace::open();
        let two = async {
            let first = pace.next().await.unwrap();
            let second = pace.next().await.unwrap();
            assert!((second - first).as_secs_f64() - 0.001 < 1e-6, "a thousand per second");
            // Nobody takes those that come now.
            while pace.waiting() < 3 {
                tokio::task::yield_now().await;
            }
            let unsent = pace.stop();
            assert!(unsent.windows(2).all(|pair| pair[0] < pair[1]) && unsent[0] > second, "{unsent:?}");
            assert!(pace.next().await.is_none());
        };
        tokio::join!(pace.drive(1000.0), two);
    });
}
