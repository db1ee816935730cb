//! Node's own clients, `http` and `http2`, before Node's own servers.

use crate::{bed, tools};

/// Many streams, pings, small windows, uploads with trailers, crumbled cookies, interim answers, clients that leave, servers
/// that reset, cut off or send GOAWAY, WebSockets; see the scripts.
#[test]
fn node_on_both_sides() {
    let Some(node) = tools::tool("NODE_BIN") else { return };
    let (_origin, origins) = bed::node_origin(&node);
    bed::through_every_chain(&origins, |bed| {
        for prefix in ["h1", "h2"] {
            let script = tools::script("client.mjs").display().to_string();
            let authority = bed.authority().display().to_string();
            let arguments = [
                script,
                bed.plain.to_string(),
                bed.tls.to_string().replace("127.0.0.1", "localhost"),
                authority,
                prefix.into(),
            ];
            let (said, _) = tools::run(&node, &arguments);
            assert!(said.contains("all is as it should be"), "{} to {prefix}: {said}", bed.name);
        }
    });
}
