//! Envoy's overload manager: how much of what there is is in use, looked at several times a second, and what is not taken on
//! while that is too much. What is under way goes on.

mod config;
mod connections;
mod memory;

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

pub(crate) use config::Settings;
use config::{Action, Trigger};
pub(crate) use connections::most_connections;

use crate::telemetry::stats::{Counter, Gauge, Registry, Scope};

/// What is being done against overload now: each with how likely it is done, from never (0) to always (`u32::MAX`).
#[derive(Debug, Default)]
pub(crate) struct Overload {
    requests: AtomicU32,
    keep_alive: AtomicU32,
    connections: AtomicU32,
    /// Listeners wait while it is true.
    stopped: watch::Sender<bool>,
}

impl Overload {
    /// Whether a new request is to be turned away. `draw` gives a number that any may be.
    pub(crate) fn sheds_request(&self, draw: impl FnOnce() -> u64) -> bool {
        happens(&self.requests, draw)
    }

    /// Whether all new requests are turned away.
    pub(crate) fn sheds_all(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == u32::MAX
    }

    /// Whether a connection is to end with what is on it.
    pub(crate) fn ends_connection(&self, draw: impl FnOnce() -> u64) -> bool {
        happens(&self.keep_alive, draw)
    }

    /// Whether a connection that was just accepted is to be closed.
    pub(crate) fn rejects_connection(&self, draw: impl FnOnce() -> u64) -> bool {
        happens(&self.connections, draw)
    }

    /// Waits until connections may be accepted.
    pub(crate) async fn may_accept(&self) {
        if *self.stopped.borrow() {
            // An error is that nobody will say so, and there is nobody without this.
            let _ = self.stopped.subscribe().wait_for(|stopped| !stopped).await;
        }
    }

    fn act(&self, action: Action, likely: f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 1")]
        let scaled = (likely * f64::from(u32::MAX)) as u32;
        match action {
            Action::StopAcceptingRequests => self.requests.store(scaled, Ordering::Relaxed),
            Action::DisableKeepAlive => self.keep_alive.store(scaled, Ordering::Relaxed),
            Action::RejectConnections => self.connections.store(scaled, Ordering::Relaxed),
            Action::StopAcceptingConnections => {
                self.stopped.send_if_modified(|stopped| std::mem::replace(stopped, likely >= 1.0) != (likely >= 1.0));
            }
            // The allocator gives back what is free by itself, within a moment.
            Action::ShrinkHeap => {}
        }
    }
}

fn happens(likely: &AtomicU32, draw: impl FnOnce() -> u64) -> bool {
    // Nothing else depends on the order in which this is seen.
    match likely.load(Ordering::Relaxed) {
        0 => false,
        u32::MAX => true,
        likely => (draw() >> 32) < u64::from(likely),
    }
}

/// What is told of one monitor, and of one action.
struct Told {
    pressure: Vec<(Gauge, Counter)>,
    actions: Vec<(Gauge, Gauge)>,
}

impl Told {
    fn new(settings: &Settings, registry: &Registry) -> Self {
        let scope = |name: &str| Scope::Named(format!("overload.{name}").into());
        let monitor = |name: &str| {
            let scope = scope(name);
            (registry.gauge(&scope, "pressure"), registry.counter(&scope, "failed_updates"))
        };
        let action = |name: &str| {
            let scope = scope(name);
            (registry.gauge(&scope, "active"), registry.gauge(&scope, "scale_percent"))
        };
        Self {
            pressure: settings.monitors.iter().map(|(name, _)| monitor(name)).collect(),
            actions: settings.actions.iter().map(|planned| action(&planned.name)).collect(),
        }
    }
}

/// Looks at what is in use, and acts, for ever.
pub(crate) async fn follow(settings: Settings, overload: &Overload, registry: &Registry) {
    let told = Told::new(&settings, registry);
    let mut pressures = vec![0.0; settings.monitors.len()];
    let mut ticks = tokio::time::interval(settings.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (((name, monitor), pressure), (gauge, failed)) in
            settings.monitors.iter().zip(&mut pressures).zip(&told.pressure)
        {
            match monitor.pressure() {
                Ok(read) => {
                    *pressure = read;
                    gauge.set(percent(read));
                }
                // What was read last holds on.
                Err(error) => {
                    failed.inc();
                    tracing::debug!(monitor = %name, %error, "what is in use cannot be read");
                }
            }
        }
        for (planned, (active, scale)) in settings.actions.iter().zip(&told.actions) {
            let likely = planned.triggers.iter().map(|(monitor, trigger)| trigger.state(pressures[*monitor]));
            let likely = likely.fold(0.0, f64::max);
            let saturated = u64::from(likely >= 1.0);
            if saturated != active.get() {
                let now = if saturated == 1 { "begins" } else { "ends" };
                tracing::warn!(action = %planned.name, "overload: {now}");
            }
            active.set(saturated);
            scale.set(percent(likely));
            overload.act(planned.action, likely);
        }
    }
}

/// As Envoy's gauges have it.
fn percent(part: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "neither is near")]
    let percent = (part * 100.0).clamp(0.0, 1e6) as u64;
    percent
}

impl Trigger {
    /// How likely its action is at this pressure.
    fn state(self, pressure: f64) -> f64 {
        match self {
            Self::Threshold(value) => f64::from(u8::from(pressure >= value)),
            Self::Scaled { from, to } if pressure > from => ((pressure - from) / (to - from)).clamp(0.0, 1.0),
            Self::Scaled { .. } => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn triggers_are_envoys() {
        let scaled = Trigger::Scaled { from: 0.8, to: 0.9 };
        for (trigger, pressure, expected) in [
            (Trigger::Threshold(0.5), 0.49, 0.0),
            (Trigger::Threshold(0.5), 0.5, 1.0),
            (scaled, 0.8, 0.0),
            (scaled, 0.85, 0.5),
            (scaled, 0.95, 1.0),
        ] {
            assert!((trigger.state(pressure) - expected).abs() < 1e-9, "{trigger:?} at {pressure}");
        }
    }

    #[tokio::test]
    async fn what_is_scaled_happens_now_and_then_and_who_waits_is_told() {
        let overload = Arc::new(Overload::default());
        assert!(!overload.sheds_request(|| unreachable!("nothing is drawn for nothing")));
        overload.act(Action::StopAcceptingRequests, 0.5);
        assert!(overload.sheds_request(|| u64::MAX / 4) && !overload.sheds_request(|| u64::MAX / 4 * 3));
        overload.act(Action::StopAcceptingRequests, 1.0);
        assert!(overload.sheds_request(|| u64::MAX));
        overload.act(Action::StopAcceptingConnections, 1.0);
        let waiting = tokio::spawn({
            let overload = Arc::clone(&overload);
            async move { overload.may_accept().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        overload.act(Action::StopAcceptingConnections, 0.0);
        waiting.await.expect("it may go on");
    }
}
