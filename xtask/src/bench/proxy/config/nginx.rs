//! nginx, which cannot check SPIFFE ids: it checks the chain, and the server's DNS name.

use std::path::Path;

use super::Files;
use crate::bench::proxy::scenario::{Hop, Traffic, Version};

/// Where Debian and others keep the module for plain TCP, if it is not built in.
const STREAM_MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_stream_module.so", "/usr/lib64/nginx/modules/ngx_stream_module.so"];

/// `None` where nginx has no part in this: it cannot forward to HTTP/2, and has no counterpart to a sidecar's filters.
pub(crate) fn nginx(hop: &Hop, files: Files<'_>) -> Option<String> {
    let two = |version| version == Version::Two;
    let (client_two, upstream_two) = match hop.traffic {
        Traffic::Tcp => (false, false),
        Traffic::Http { client, upstream } => (two(client), two(upstream)),
    };
    if hop.mesh || upstream_two {
        return None;
    }
    let mut head = String::new();
    let tcp = hop.traffic == Traffic::Tcp;
    if tcp && let Some(module) = STREAM_MODULES.iter().find(|path| Path::new(path).exists()) {
        head = format!("load_module {module};\n");
    }
    head +=
        &format!("daemon off;\nworker_processes 1;\nerror_log stderr error;\npid {};\n", files.own("pid").display());
    head += "events { worker_connections 16384; }\n";
    let mut listen = format!("listen 127.0.0.1:{}{}", hop.listen, if hop.tls_in { " ssl" } else { "" });
    listen += if client_two { " http2;\n" } else { ";\n" };
    if hop.tls_in {
        listen += &format!(
            "ssl_protocols TLSv1.3; ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client on;\n",
            files.shared("server.pem"),
            files.shared("server.key"),
            files.shared("ca.pem")
        );
    }
    let tls_out = if hop.tls_out { upstream_tls(files) } else { String::new() };
    let upstream = hop.upstream;
    Some(if tcp {
        let on = if hop.tls_out { "proxy_ssl on;" } else { "" };
        format!("{head}stream {{ server {{\n{listen}proxy_pass 127.0.0.1:{upstream};\n{on}{tls_out}}} }}\n")
    } else {
        let scheme = if hop.tls_out { "https" } else { "http" };
        let location = format!(
            "location / {{ proxy_pass {scheme}://upstream; proxy_http_version 1.1; proxy_set_header Connection \"\";\n{tls_out}}}"
        );
        format!(
            "{head}http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;\n\
             upstream upstream {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}\n\
             server {{\n{listen}{location}\n}} }}\n"
        )
    })
}

fn upstream_tls(files: Files<'_>) -> String {
    format!(
        "proxy_ssl_protocols TLSv1.3; proxy_ssl_certificate {}; proxy_ssl_certificate_key {};\n\
         proxy_ssl_trusted_certificate {}; proxy_ssl_verify on; proxy_ssl_name server; proxy_ssl_server_name on;\n",
        files.shared("client.pem"),
        files.shared("client.key"),
        files.shared("ca.pem")
    )
}
