//! Connections that come through a tunnel (`codec::mux`). Each is admitted as if it had been accepted just now: by the listener
//! and the filter chain that are in force, with the names that the tunnel's handshake proved. One that would be refused now,
//! or secured by other means, is refused, and the tunnel ends: the client shakes hands again, or is told why it cannot.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use lateen_engine::config::listener::FilterChain;

use super::connection::PeerTls;
use super::drain::{Drain, Phase};
use super::{Accepting, Admitted, Counted, Counters, Origin, filters, serve};
use crate::codec::mux::{Driver, Role, Stream as Tunnelled};
use crate::stream::{Stream, Wire};
use crate::telemetry::stats::Held;
use crate::tls::Terms;

/// An accepted tunnel.
pub(super) struct Tunnel {
    pub(super) wire: Wire,
    pub(super) origin: Rc<Origin>,
    pub(super) peer: Rc<PeerTls>,
    pub(super) terms: Terms,
    /// Of the chain that accepted it.
    pub(super) drain: Drain,
}

/// A tunnel without its wire.
struct Serving {
    origin: Rc<Origin>,
    peer: Rc<PeerTls>,
    terms: Terms,
    context: Rc<Accepting>,
    counters: Rc<Counters>,
}

impl Tunnel {
    /// Serves a tunnel to its end. `counted`: that it was counted as a connection, which its first stream takes over.
    pub(super) async fn serve(self, context: Rc<Accepting>, counters: Rc<Counters>, counted: (Held, Counted)) {
        let Self { wire, origin, peer, terms, mut drain } = self;
        let stats = &context.worker.tunnels.stats;
        stats.downstream_total.inc();
        let _active = stats.downstream_active.hold();
        let mut driver = Driver::new(wire, Role::Server, context.worker.alarms.alarm());
        let (first, counted) = counted;
        let mut first = Some(first);
        let serving = Rc::new(Serving { origin, peer, terms, context, counters });
        std::future::poll_fn(|cx| {
            let mut leaves = false;
            let done = driver.poll(cx, |stream| match serving.accepts() {
                Some(chain) => serving.admit(stream, &chain, first.take()),
                None => {
                    serving.context.worker.tunnels.stats.downstream_refused.inc();
                    stream.refuse();
                    leaves = true;
                }
            });
            // A chain that goes takes the tunnel along only if none has come in its place.
            if drain.poll_reached(Phase::Draining, cx).is_ready() {
                match serving.accepts() {
                    _ if serving.context.draining.get() => driver.warn(),
                    Some(chain) => {
                        drain = serving.context.drain(&chain);
                        cx.waker().wake_by_ref();
                    }
                    None => leaves = true,
                }
            }
            if leaves {
                driver.leave();
            }
            if drain.poll_reached(Phase::Cut, cx).is_ready() { Poll::Ready(()) } else { done }
        })
        .await;
        drop(first);
        driver.finish().await;
        drop(counted);
    }
}

impl Serving {
    /// The chain that a connection would get now, if it would be accepted on the tunnel's terms.
    fn accepts(&self) -> Option<Arc<FilterChain>> {
        let worker = &self.context.worker;
        let listener = self.origin.listener(&worker.snapshot())?;
        let chain = self.origin.chain(&listener)?;
        let tls = chain.tls.as_ref()?;
        worker.shared.tls.still_accepts(tls, &self.terms).then_some(chain)
    }

    /// Serves a stream as the connection that it stands for, unless the network filters deny it.
    fn admit(self: &Rc<Self>, stream: Tunnelled, chain: &Arc<FilterChain>, counted: Option<Held>) {
        let context = &self.context;
        context.worker.tunnels.stats.downstream_streams.inc();
        let held = counted.unwrap_or_else(|| {
            self.counters.total.inc();
            self.counters.active.hold()
        });
        let mut info = self.origin.connection(chain, Some(Rc::clone(&self.peer)), &context.worker);
        let (counted, drain) = (context.count(), context.drain(chain));
        let (chain, context, origin) = (Arc::clone(chain), Rc::clone(context), Rc::clone(&self.origin));
        tokio::task::spawn_local(async move {
            let _held = (held, counted);
            if filters::pass(&chain, &mut info, &context.worker).await {
                let stream = Stream::Tunnelled(stream);
                serve(Admitted { stream, prefix: BytesMut::new(), info, chain, drain, origin }, context, None).await;
            }
        });
    }
}
