//! What our own proxy says to what we send: it must take every resource.

use std::collections::HashSet;

use lateen_engine::config::{Resources, Update};

use crate::world::{TYPES, worlds};

/// Fields that the engine does not honour yet and therefore refuses. Whatever it learns is taken off.
const NOT_YET: [&str; 4] = [
    // Destination rules: tls SIMPLE, warmup, outlierDetectionHttpErrorCodes.
    "upstream_http_protocol_options",
    "slow_start_config",
    "typed_extension_protocol_options.outlier_detection",
    "stat_prefix",
];

#[test]
fn the_engine_takes_what_we_send() {
    let mut refused = Vec::new();
    let mut known = HashSet::new();
    let mut taken = 0;
    for (case, world) in worlds() {
        for workload in world.mesh.workloads() {
            let proxy = format!("{}.{}", workload.name, workload.namespace);
            let mut resources = Resources::default();
            for (_, url) in TYPES {
                let upserts: Vec<_> = world
                    .resources(&proxy, url)
                    .iter()
                    .map(|named| (named.name.to_string(), named.resource.clone()))
                    .collect();
                taken += upserts.len();
                let update = Update { type_url: url.to_owned(), upserts, removals: Vec::new() };
                if let Err(errors) = resources.apply(&update) {
                    for error in errors.iter().map(ToString::to_string) {
                        match not_yet(&error) {
                            Some(field) => _ = known.insert(field),
                            None => refused.push(format!("{case}: {proxy}: {error}")),
                        }
                    }
                }
            }
        }
    }
    assert!(taken > 500, "only {taken} resources");
    for field in NOT_YET {
        assert!(known.contains(field), "the engine takes {field} now: take it off the list");
    }
    assert!(refused.is_empty(), "{} of {taken} refused:\n{}", refused.len(), refused.join("\n"));
}

/// The field of the list that this error is about.
fn not_yet(error: &str) -> Option<&'static str> {
    NOT_YET.into_iter().find(|field| error.ends_with("is not supported") && error.contains(field))
}
