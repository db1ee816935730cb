//! The workers' threads.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;

use crate::config::{Order, Workers};
use crate::listener::{Listeners, Places, ServerFirst, Sockets};
use crate::upstream::key_sets;
use crate::worker::{Shared, Worker};

/// The threads, and what they take orders by.
pub(super) struct Running {
    pub orders: Workers,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Starts one worker for each of `sockets`.
    ///
    /// # Errors
    /// A thread that cannot be had.
    pub(super) fn start(
        shared: &Arc<Shared>,
        sockets: Vec<Sockets>,
        places: Places,
        drain_time: Duration,
    ) -> anyhow::Result<Self> {
        let (server_first, places) = (Arc::new(ServerFirst::default()), Arc::new(places));
        let mut running = Self { orders: Vec::new(), threads: Vec::new() };
        for (number, sockets) in sockets.into_iter().enumerate() {
            let (sender, receiver) = mpsc::unbounded_channel();
            let (shared, server_first, places) = (Arc::clone(shared), Arc::clone(&server_first), Arc::clone(&places));
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                work(&shared, number, sockets, receiver, |worker| {
                    Listeners::new(worker, server_first, places, drain_time)
                });
            });
            running.threads.push(thread.context("cannot start a worker")?);
            running.orders.push(sender);
        }
        Ok(running)
    }

    /// Waits until all have ended, as they were told to.
    pub(super) fn join(self) {
        drop(self.orders);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended badly");
            }
        }
    }
}

/// A worker's thread.
fn work(
    shared: &Arc<Shared>,
    number: usize,
    sockets: Sockets,
    mut orders: mpsc::UnboundedReceiver<Order>,
    listeners: impl FnOnce(Rc<Worker>) -> Listeners,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker cannot start");
            return;
        }
    };
    let seed = std::collections::hash_map::RandomState::new();
    let seed = std::hash::BuildHasher::hash_one(&seed, number);
    runtime.block_on(async move {
        let worker = Worker::new(Arc::clone(shared), seed);
        let mut listeners = listeners(Rc::clone(&worker));
        key_sets::look_ahead(&worker);
        listeners.follow(sockets);
        while let Some(order) = orders.recv().await {
            match order {
                Order::Refresh { sockets, done } => {
                    worker.refresh();
                    key_sets::look_ahead(&worker);
                    listeners.follow(sockets);
                    drop(done);
                }
                Order::DrainConnections { inbound_only, time } => listeners.drain_connections(inbound_only, time),
                Order::Drain(time) => {
                    listeners.drain_all(time);
                    break;
                }
            }
        }
        listeners.idle().await;
        worker.flush().await;
    });
}
