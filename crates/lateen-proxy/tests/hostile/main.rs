//! What has been tried against proxies and meshes before (the bulletins of Envoy, Istio, Linkerd, HAProxy, nginx and the HTTP
//! libraries), tried against the built proxy: what is sent, what must come back, and that others are served meanwhile.
//! docs/security.md lists what each promise is and which test holds it.

mod admin;
#[path = "../it/authority.rs"]
#[allow(dead_code, reason = "shared with the suite `it`, which uses more of it")]
mod authority;
#[path = "../it/discovery_server.rs"]
#[allow(dead_code, reason = "shared with the suite `it`, which uses more of it")]
mod discovery_server;
mod frames;
mod framing;
mod hello;
mod http2;
mod matching;
mod origins;
mod policies;
#[path = "../it/proxy.rs"]
#[allow(dead_code, reason = "shared with the suite `it`, which uses more of it")]
mod proxy;
mod resources;
mod site;
mod smuggling;
mod tokens;
mod upstreams;
