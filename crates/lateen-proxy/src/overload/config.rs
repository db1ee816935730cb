//! `overload_manager` of a bootstrap, and what stands in its place in a mesh.

use std::time::Duration;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::overload::v3 as proto;
use envoy_types::pb::envoy::extensions::resource_monitors::cgroup_memory::v3::CgroupMemoryConfig;
use envoy_types::pb::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use envoy_types::pb::envoy::extensions::resource_monitors::fixed_heap::v3::FixedHeapConfig;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};
use proto::resource_monitor::ConfigType;
use proto::trigger::TriggerOneof;

use super::memory::{Group, Monitor};

/// What is looked at, and what is done about it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Settings {
    /// How many downstream connections there may be at a time.
    pub(crate) connections: Option<usize>,
    pub(super) every: Duration,
    /// By name.
    pub(super) monitors: Vec<(String, Monitor)>,
    pub(super) actions: Vec<Planned>,
}

/// An action, and when it is taken: at the highest state of these triggers, each of a monitor by its place.
#[derive(Debug, PartialEq)]
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) action: Action,
    pub(super) triggers: Vec<(usize, Trigger)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// New ones are answered with 503.
    StopAcceptingRequests,
    /// Connections end with what is on them.
    DisableKeepAlive,
    StopAcceptingConnections,
    /// They are accepted and closed.
    RejectConnections,
    ShrinkHeap,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Trigger {
    Threshold(f64),
    Scaled { from: f64, to: f64 },
}

/// Actions and points of shedding by their names.
const ACTIONS: [(&str, Action); 5] = [
    ("envoy.overload_actions.stop_accepting_requests", Action::StopAcceptingRequests),
    ("envoy.overload_actions.disable_http_keepalive", Action::DisableKeepAlive),
    ("envoy.overload_actions.stop_accepting_connections", Action::StopAcceptingConnections),
    ("envoy.overload_actions.reject_incoming_connections", Action::RejectConnections),
    ("envoy.overload_actions.shrink_heap", Action::ShrinkHeap),
];
const POINTS: [(&str, Action); 1] = [("envoy.load_shed_points.tcp_listener_accept", Action::RejectConnections)];

const AT: &str = "bootstrap: overload_manager";

impl Settings {
    /// Of a bootstrap; nothing where it says nothing, as with Envoy.
    ///
    /// # Errors
    /// What of it is not honoured, or is wrong.
    pub(crate) fn from_xds(bootstrap: &Bootstrap) -> Result<Self, Vec<String>> {
        let Some(manager) = &bootstrap.overload_manager else { return Ok(Self::default()) };
        let mut reading = Reading::default();
        if manager.buffer_factory_config.is_some() {
            reading.complain("buffer_factory_config", "is not supported");
        }
        let every = manager.refresh_interval.as_ref().map_or(Some(Duration::from_secs(1)), interval);
        if every.is_none() {
            reading.complain("refresh_interval", "must be above zero");
        }
        for (index, monitor) in manager.resource_monitors.iter().enumerate() {
            reading.monitor(monitor, &format!("resource_monitors[{index}]"));
        }
        for (index, action) in manager.actions.iter().enumerate() {
            let at = format!("actions[{index}]");
            reading.action(&ACTIONS, (&action.name, &action.triggers), &at);
            let shrinks = action.typed_config.as_ref().is_some_and(is::<proto::ShrinkHeapConfig>);
            if action.typed_config.is_some() && !shrinks {
                reading.complain(&format!("{at}.typed_config"), "is not supported");
            }
        }
        for (index, point) in manager.loadshed_points.iter().enumerate() {
            reading.action(&POINTS, (&point.name, &point.triggers), &format!("loadshed_points[{index}]"));
        }
        let Reading { connections, monitors, actions, complaints } = reading;
        match every {
            Some(every) if complaints.is_empty() => Ok(Self { connections, every, monitors, actions }),
            _ => Err(complaints),
        }
    }

    /// Of a proxy of a mesh that has a control group of its own, and so all of the memory it is given: Envoy's own example
    /// of an edge, but that connections are turned away later than requests, to which an answer can be given.
    pub(crate) fn of_mesh() -> Self {
        let group = Group::own();
        if !group.is_ours() || !matches!(group.limit(), Ok(Some(_))) {
            return Self::default();
        }
        let planned = |(name, action): (&str, Action), at: f64| Planned {
            name: name.to_owned(),
            action,
            triggers: vec![(0, Trigger::Threshold(at))],
        };
        let [requests, keep_alive, ..] = ACTIONS;
        let [accept] = POINTS;
        Self {
            connections: None,
            every: Duration::from_millis(250),
            monitors: vec![("envoy.resource_monitors.cgroup_memory".to_owned(), Monitor::Group(group, None))],
            actions: vec![planned(keep_alive, 0.92), planned(requests, 0.95), planned(accept, 0.98)],
        }
    }

    /// Whether there is anything to look at.
    pub(crate) fn looks(&self) -> bool {
        !self.monitors.is_empty()
    }
}

#[derive(Default)]
struct Reading {
    connections: Option<usize>,
    monitors: Vec<(String, Monitor)>,
    actions: Vec<Planned>,
    complaints: Vec<String>,
}

impl Reading {
    fn complain(&mut self, field: &str, what: &str) {
        self.complaints.push(format!("{AT}.{field}: {what}"));
    }

    fn monitor(&mut self, monitor: &proto::ResourceMonitor, at: &str) {
        let at = format!("{at}.typed_config");
        let Some(ConfigType::TypedConfig(any)) = &monitor.config_type else {
            return self.complain(&at, "is required");
        };
        let read = if is::<DownstreamConnectionsConfig>(any) {
            return self.connections(any, &at);
        } else if is::<FixedHeapConfig>(any) {
            match FixedHeapConfig::decode(&*any.value).map(|config| config.max_heap_size_bytes) {
                Ok(0) => return self.complain(&format!("{at}.max_heap_size_bytes"), "must be above zero"),
                most => most.map(Monitor::Own),
            }
        } else if is::<CgroupMemoryConfig>(any) {
            let most = CgroupMemoryConfig::decode(&*any.value).map(|config| config.max_memory_bytes);
            most.map(|most| Monitor::Group(Group::own(), Some(most).filter(|most| *most > 0)))
        } else {
            return self.complain(&at, &format!("{} is not supported", any.type_url));
        };
        match read {
            Ok(_) if self.monitors.iter().any(|(known, _)| *known == monitor.name) => {
                self.complain(&at, &format!("there are several monitors `{}`", monitor.name));
            }
            Ok(read) => self.monitors.push((monitor.name.clone(), read)),
            Err(error) => self.complain(&at, &error.to_string()),
        }
    }

    fn connections(&mut self, any: &Any, at: &str) {
        match DownstreamConnectionsConfig::decode(&*any.value) {
            Ok(DownstreamConnectionsConfig { max_active_downstream_connections: bound @ 1.. }) => {
                self.connections = usize::try_from(bound).ok();
            }
            Ok(_) => self.complain(&format!("{at}.max_active_downstream_connections"), "must be above zero"),
            Err(error) => self.complain(at, &error.to_string()),
        }
    }

    fn action(&mut self, known: &[(&str, Action)], (name, triggers): (&str, &[proto::Trigger]), at: &str) {
        let Some((_, action)) = known.iter().find(|(known, _)| *known == name) else {
            return self.complain(&format!("{at}.name"), &format!("{name} is not supported"));
        };
        if self.actions.iter().any(|planned| planned.action == *action) {
            return self.complain(&format!("{at}.name"), "does what another one does");
        }
        let mut read = Vec::with_capacity(triggers.len());
        for (index, trigger) in triggers.iter().enumerate() {
            let at = format!("{at}.triggers[{index}]");
            let Some(monitor) = self.monitors.iter().position(|(monitor, _)| *monitor == trigger.name) else {
                self.complain(&format!("{at}.name"), &format!("`{}` is none of the monitors of memory", trigger.name));
                continue;
            };
            match trigger.trigger_oneof.as_ref().map(threshold) {
                Some(Some(trigger)) => read.push((monitor, trigger)),
                Some(None) => self.complain(&at, "thresholds are between 0 and 1, and rise"),
                None => self.complain(&at, "needs a threshold"),
            }
        }
        if triggers.is_empty() {
            self.complain(&format!("{at}.triggers"), "at least one is required");
        }
        self.actions.push(Planned { name: name.to_owned(), action: *action, triggers: read });
    }
}

fn interval(interval: &envoy_types::pb::google::protobuf::Duration) -> Option<Duration> {
    let interval = Duration::new(u64::try_from(interval.seconds).ok()?, u32::try_from(interval.nanos).ok()?);
    (!interval.is_zero()).then_some(interval)
}

fn threshold(trigger: &TriggerOneof) -> Option<Trigger> {
    let part = |value: f64| (0.0..=1.0).contains(&value);
    match trigger {
        TriggerOneof::Threshold(threshold) => part(threshold.value).then_some(Trigger::Threshold(threshold.value)),
        TriggerOneof::Scaled(scaled) => {
            let (from, to) = (scaled.scaling_threshold, scaled.saturation_threshold);
            (part(from) && part(to) && from < to).then_some(Trigger::Scaled { from, to })
        }
    }
}

fn is<M: Name>(any: &Any) -> bool {
    any.type_url.rsplit('/').next() == Some(M::full_name().as_str())
}

#[cfg(test)]
mod tests {
    use super::super::most_connections;
    use super::*;

    fn told(manager: &str) -> Result<Settings, Vec<String>> {
        let bootstrap = lateen_xds::json::from_yaml(&format!("overload_manager: {manager}"));
        Settings::from_xds(&bootstrap.expect("it is a bootstrap"))
    }

    fn monitor(kind: &str, fields: &str) -> String {
        format!(
            "{{name: it, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.{kind}, {fields}}}}}"
        )
    }

    const HEAP: &str = "fixed_heap.v3.FixedHeapConfig";
    const CONNECTIONS: &str = "downstream_connections.v3.DownstreamConnectionsConfig";

    #[test]
    fn connections_are_bounded() {
        let bounded = |bound: &str| told(&format!("{{resource_monitors: [{}]}}", monitor(CONNECTIONS, bound)));
        let settings = bounded("max_active_downstream_connections: 7").expect("it is right");
        assert!(settings.connections == Some(7) && !settings.looks());
        assert_eq!(Settings::from_xds(&Bootstrap::default()), Ok(Settings::default()));
        assert!(most_connections(Some(7)) == 7 && most_connections(None) > 100);
        let complaint = "bootstrap: overload_manager.resource_monitors[0].typed_config.max_active_downstream_connections: \
                         must be above zero";
        assert_eq!(bounded(""), Err(vec![complaint.to_owned()]));
    }

    #[test]
    fn actions_follow_the_monitors_that_they_name() {
        let heap = monitor(HEAP, "max_heap_size_bytes: 1000");
        let settings = told(&format!(
            "{{refresh_interval: 0.25s, resource_monitors: [{heap}], actions: [{{name: \
             envoy.overload_actions.stop_accepting_requests, triggers: [{{name: it, threshold: {{value: 0.95}}}}]}}, {{name: \
             envoy.overload_actions.disable_http_keepalive, triggers: [{{name: it, scaled: {{scaling_threshold: 0.8, \
             saturation_threshold: 0.9}}}}]}}]}}"
        ));
        let settings = settings.expect("it is right");
        assert_eq!((settings.every, settings.monitors.len()), (Duration::from_millis(250), 1));
        let triggers: Vec<_> = settings.actions.iter().map(|planned| (planned.action, planned.triggers[0])).collect();
        assert_eq!(
            triggers,
            [
                (Action::StopAcceptingRequests, (0, Trigger::Threshold(0.95))),
                (Action::DisableKeepAlive, (0, Trigger::Scaled { from: 0.8, to: 0.9 })),
            ]
        );
    }

    #[test]
    fn what_is_not_honoured_is_refused_by_name() {
        let heap = monitor(HEAP, "max_heap_size_bytes: 1000");
        let with = |rest: &str| format!("{{resource_monitors: [{heap}], {rest}}}");
        for (manager, complaint) in [
            (
                format!("{{resource_monitors: [{}]}}", monitor(HEAP, "")),
                "resource_monitors[0].typed_config.max_heap_size_bytes: must be above zero",
            ),
            (
                format!("{{resource_monitors: [{heap}, {heap}]}}"),
                "resource_monitors[1].typed_config: there are several monitors `it`",
            ),
            (
                format!("{{resource_monitors: [{}]}}", monitor("cpu_utilization.v3.CpuUtilizationConfig", "")),
                "resource_monitors[0].typed_config: type.googleapis.com/envoy.extensions.resource_monitors.cpu_utilization.v3.CpuUtilizationConfig is not supported",
            ),
            (
                with("actions: [{name: envoy.overload_actions.reset_high_memory_stream}]"),
                "actions[0].name: envoy.overload_actions.reset_high_memory_stream is not supported",
            ),
            (
                with("actions: [{name: envoy.overload_actions.shrink_heap}]"),
                "actions[0].triggers: at least one is required",
            ),
            (
                with(
                    "loadshed_points: [{name: envoy.load_shed_points.tcp_listener_accept, triggers: [{name: other, threshold: {value: 1}}]}]",
                ),
                "loadshed_points[0].triggers[0].name: `other` is none of the monitors of memory",
            ),
            (
                with(
                    "actions: [{name: envoy.overload_actions.shrink_heap, triggers: [{name: it, threshold: {value: 2}}]}]",
                ),
                "actions[0].triggers[0]: thresholds are between 0 and 1, and rise",
            ),
            (with("loadshed_points: [{name: x}]"), "loadshed_points[0].name: x is not supported"),
            (with("refresh_interval: 0s"), "refresh_interval: must be above zero"),
            (with("buffer_factory_config: {}"), "buffer_factory_config: is not supported"),
        ] {
            assert_eq!(told(&manager), Err(vec![format!("{AT}.{complaint}")]), "{manager}");
        }
    }
}
