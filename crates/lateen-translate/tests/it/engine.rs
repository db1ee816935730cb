//! What our own proxy says to what we send: it must take every resource.

use lateen_engine::config::Resources;

use crate::world::{TYPES, visit};

#[test]
fn the_engine_takes_what_we_send() {
    let mut refused = Vec::new();
    let mut taken = 0;
    visit(|case, world, proxy| {
        let mut resources = Resources::default();
        for (_, url) in TYPES {
            for named in world.resources(proxy, url) {
                taken += 1;
                if let Err(errors) = resources.upsert(url, &named.name, &named.to_any(), |_| Ok(())) {
                    refused.extend(errors.iter().map(|error| format!("{case}: {proxy}: {error}")));
                }
            }
        }
    });
    assert!(taken > 500, "only {taken} resources");
    assert!(refused.is_empty(), "{} of {taken} refused:\n{}", refused.len(), refused.join("\n"));
}
