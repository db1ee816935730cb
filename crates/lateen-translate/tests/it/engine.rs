//! What our own proxy says to what we send: it must take every resource.

use lateen_engine::config::Resources;

use crate::world::{TYPES, worlds};

/// Fields that the engine does not honour yet and therefore refuses. Whatever it learns is taken off.
const NOT_YET: [&str; 4] = [
    // Destination rules: tls SIMPLE, warmup, outlierDetectionHttpErrorCodes.
    "upstream_http_protocol_options",
    "slow_start_config",
    "typed_extension_protocol_options.outlier_detection",
    // Virtual services: statPrefix.
    "stat_prefix",
];

#[test]
fn the_engine_takes_what_we_send() {
    let mut refused = Vec::new();
    let mut taken = 0;
    for (case, world) in worlds() {
        for workload in world.mesh.workloads() {
            let proxy = format!("{}.{}", workload.name, workload.namespace);
            let mut resources = Resources::default();
            for (_, url) in TYPES {
                for named in world.resources(&proxy, url) {
                    taken += 1;
                    if let Err(errors) = resources.upsert(url, &named.name, &named.resource, |_| Ok(())) {
                        let unknown = errors.iter().map(ToString::to_string).filter(|error| !is_known(error));
                        refused.extend(unknown.map(|error| format!("{case}: {proxy}: {error}")));
                    }
                }
            }
        }
    }
    assert!(taken > 500, "only {taken} resources");
    assert!(refused.is_empty(), "{} of {taken} refused:\n{}", refused.len(), refused.join("\n"));
}

fn is_known(error: &str) -> bool {
    error.ends_with("is not supported") && NOT_YET.iter().any(|field| error.contains(field))
}
