//! The built proxy between scripted peers: real sockets, byte by byte where it matters.

mod authority;
mod discovery;
mod discovery_admin;
mod discovery_server;
mod ejection;
mod http2_conformance;
mod http_access;
mod http_bodies;
mod http_connections;
mod http_failures;
mod http_grpc_stats;
mod http_interim;
mod http_stale;
mod http_upgrade;
mod http_versions;
mod http_waiting;
mod identity_key_exchange;
mod identity_rotation;
mod identity_socket;
mod identity_svid;
mod lifetimes;
mod memory;
mod mirror;
mod on_demand;
#[allow(dead_code, reason = "shared with the suite `hostile`, which uses more of it")]
mod proxy;
mod server_names;
mod stats_log;
mod tcp_begin;
mod tls_resumption;
mod tls_server;
mod tunnel;
mod tunnel_changes;
mod tunnel_hostile;
mod tunnel_pair;
