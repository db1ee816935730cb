//! HAProxy, which cannot check SPIFFE ids: it checks the chain, and the server's DNS name.

use super::Files;
use crate::bench::proxy::scenario::{Hop, Traffic, Version};

/// `None` where HAProxy has no part in this: it has no counterpart to a sidecar's filters.
pub(crate) fn haproxy(hop: &Hop, files: Files<'_>) -> Option<String> {
    if hop.mesh {
        return None;
    }
    let ca = files.shared("ca.pem");
    let (mut bind, mut server) =
        (format!("bind 127.0.0.1:{}", hop.listen), format!("server s 127.0.0.1:{}", hop.upstream));
    if hop.tls_in {
        let own = files.shared("server.both");
        bind += &format!(" ssl crt {own} ca-file {ca} verify required ssl-min-ver TLSv1.3");
    }
    if hop.tls_out {
        let own = files.shared("client.both");
        server += &format!(
            " ssl crt {own} ca-file {ca} verify required sni str(server) verifyhost server ssl-min-ver TLSv1.3"
        );
    }
    let (mode, option) = match hop.traffic {
        Traffic::Tcp => ("tcp", "option splice-auto"),
        Traffic::Http { client, upstream } => {
            let two = |tls| if tls { " alpn h2" } else { " proto h2" };
            if client == Version::Two {
                bind += two(hop.tls_in);
            }
            if upstream == Version::Two {
                server += two(hop.tls_out);
            }
            ("http", "http-reuse always")
        }
    };
    Some(format!(
        // Splicing takes two more descriptors for each connection, of 20,000 that it may have here.
        "global\n nbthread 1\n maxconn 4000\n\
         defaults\n mode {mode}\n timeout connect 5s\n timeout client 600s\n timeout server 600s\n {option}\n\
         frontend in\n {bind}\n default_backend upstream\n\
         backend upstream\n {server}\n"
    ))
}
