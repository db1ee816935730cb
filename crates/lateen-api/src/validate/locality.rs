//! Rules for `localityLbSetting` and `zoneAwareLbSetting`, of a DestinationRule and of the whole mesh (Istio's
//! `ValidateLocalityLbSetting` and `ValidateZoneAwareLbSetting`).

use crate::networking::destination_rule::{Failover, LocalityLbSetting, ZoneAwareLbSetting};

/// Labels that say where an endpoint is; localities order by them already.
const TOPOLOGY: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

/// What is wrong: the field within the setting (empty: the setting), and why.
pub(crate) type Problems = Vec<(String, String)>;

pub(crate) fn locality_lb(setting: &LocalityLbSetting) -> Problems {
    let mut out = Vec::new();
    let fails_over = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
    if !setting.distribute.is_empty() && fails_over {
        out.push((String::new(), "`distribute` may not stand beside `failover` or `failoverPriority`".to_owned()));
    }
    if !setting.failover.is_empty() {
        for (index, label) in topology(&setting.failover_priority) {
            let message = format!("`failover` orders by locality already, `{label}` may not stand beside it");
            out.push((format!("failoverPriority[{index}]"), message));
        }
    }
    let from: Vec<&str> = setting.distribute.iter().map(|rule| rule.from.as_str()).collect();
    localities(&from, |index| format!("distribute[{index}].from"), &mut out);
    for (index, rule) in setting.distribute.iter().enumerate() {
        let field = format!("distribute[{index}].to");
        let total: u64 = rule.to.values().map(|weight| u64::from(*weight)).sum();
        if let Some((place, _)) = rule.to.iter().find(|(_, weight)| **weight == 0) {
            out.push((format!("{field}.{place}"), "a weight is from 1 to 100".to_owned()));
        } else if total != 100 {
            out.push((field.clone(), format!("the weights add up to {total}, not 100")));
        }
        let to: Vec<&str> = rule.to.keys().map(String::as_str).collect();
        localities(&to, |at| format!("{field}.{}", to[at]), &mut out);
    }
    failover(&setting.failover, &mut out);
    out
}

pub(crate) fn zone_aware_lb(setting: &ZoneAwareLbSetting) -> Problems {
    let mut out = Vec::new();
    for (index, label) in topology(&setting.failover_priority) {
        let message = format!("regions and zones are kept to by themselves, `{label}` may not stand here");
        out.push((format!("failoverPriority[{index}]"), message));
    }
    failover(&setting.failover, &mut out);
    out
}

fn topology(labels: &[String]) -> impl Iterator<Item = (usize, &String)> {
    labels.iter().enumerate().filter(|(_, label)| TOPOLOGY.contains(&label.as_str()))
}

fn failover(rules: &[Failover], out: &mut Problems) {
    for (index, rule) in rules.iter().enumerate() {
        let mut add = |message| out.push((format!("failover[{index}]"), message));
        if rule.from == rule.to {
            add(format!("the region `{}` cannot take over for itself", rule.from));
        }
        for region in [&rule.from, &rule.to] {
            if region.is_empty() || region.contains(['/', '*']) {
                add(format!("`{region}` is no region: failover goes from a region to another as a whole"));
            }
        }
    }
}

/// Each names something, `*` stands at the end, and none is for what one before it is for.
fn localities(all: &[&str], field: impl Fn(usize) -> String, out: &mut Problems) {
    for (index, locality) in all.iter().enumerate() {
        if locality.split('/').any(str::is_empty) || locality.split('/').count() > 3 {
            out.push((
                field(index),
                format!("`{locality}` is not a locality: region, region/zone or region/zone/subzone"),
            ));
        } else if locality.find('*').is_some_and(|at| at + 1 < locality.len()) {
            out.push((field(index), format!("`{locality}`: `*` may only stand at the end")));
        } else if let Some(other) = all[..index].iter().find(|other| overlaps(other, locality)) {
            out.push((field(index), format!("`{locality}` overlaps with `{other}`")));
        }
    }
}

/// Whether `before` is for all that `later` is for, or `later` for the whole region of `before`.
fn overlaps(before: &str, later: &str) -> bool {
    let covers = |wide: &str| {
        let mut own = later.split('/');
        wide.split('/').all(|part| part == "*" || own.next().is_some_and(|other| part == other))
    };
    covers(before) || (!later.contains('/') && before.split('/').next() == Some(later))
}
