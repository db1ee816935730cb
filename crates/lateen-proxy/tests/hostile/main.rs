//! What has been tried against proxies and meshes before (the bulletins of Envoy, Istio, Linkerd, HAProxy, nginx and the HTTP
//! libraries), tried against the built proxy: what is sent, what must come back, and that others are served meanwhile.
//! docs/security.md lists what each promise is and which test holds it.
//!
//! By kind of attack, with examples that became known, and what is tried here (elsewhere where it says so):
//!
//! | attack | tests |
//! | --- | --- |
//! | dot segments, escapes, slashes, backslashes, parameters, fragments, queries (CVE-2019-9901, -2021-31920, -2021-39156, -2020-8595) | `matching`: `dot_segments…`, `slashes…`, `every_escape…`, `parameters…`, `fragments…`, `queries…` |
//! | hosts in other spellings, twice, absolute, against `:authority` (CVE-2019-18838, -2021-39155) | `matching`: `hosts_are…`, `a_request_has_one_host`, `an_absolute_target…` |
//! | values on several lines, spaces, NUL, bytes that are no text, underscores (CVE-2019-18802, -2020-25017) | `matching`: `one_of_several…`, `bytes_that…`, `underscores…` |
//! | principals read as patterns, on TCP too (CVE-2020-16844); `*` and braces in paths (CVE-2025-46821) | `matching`: `principals…`, `wildcards…` |
//! | no slash, empty paths, schemes and methods in other cases (CVE-2026-33186, -2023-35944) | `matching`: `a_path_is_one`, `the_connection_decides…`, `methods…` |
//! | two lengths, two codings, chunks, bare line feeds, folds (CVE-2021-40346, -2023-25725, RUSTSEC-2021-0078) | `framing` |
//! | bodies and bytes taken for requests, upgrades, h2c, CONNECT, connection options, trailers (CVE-2025-4366, -2026-2833, -2024-45410) | `smuggling`, `framing` |
//! | answers that are several, early, without end (CVE-2024-53271) | `upstreams`, `smuggling`: `an_early_answer…` |
//! | rapid reset, made resets, CONTINUATION, PING, SETTINGS, empty frames, windows, HPACK (CVE-2023-44487, -2025-8671, -2024-30255) | `http2` |
//! | messages that unfold: gRPC lengths, compression, depth; aliases and nests of YAML; patterns (CVE-2019-14993, -2022-29225) | `http2`: `lengths_of_grpc…`; `matching`: `patterns…`; lateen-control `hostile_callers`; lateen-api `hostile` |
//! | slow heads, bodies, handshakes; connections and descriptors; memory; statistics and logs (CVE-2020-8663, -2020-12605) | `resources` |
//! | forwarded headers, told certificates, PROXY headers (CVE-2024-45806, -2024-23324) | `origins` |
//! | tokens: algorithms, keys, times, places, key servers (CVE-2026-25537, ISTIO-SECURITY-2021-001) | `tokens`; keys that the control plane fetches: lateen-control `keys` |
//! | hellos in pieces and without end, names of others, SNI against Host (CVE-2020-8660, -2018-21246) | `hello` |
//! | SVIDs that are none, trust domains, servers of another name, resumption, expiry (CVE-2025-66220, -2022-21654) | suite `it`: `identity_svid`, `tls_resumption`, `tunnel_changes`, `server_names` |
//! | secrets that are not there yet, control planes that are gone or wrong (CVE-2020-8664) | suite `it`: `identity_rotation`, `discovery` |
//! | a policy that comes late | `policies` |
//! | certificates, configuration and secrets of others; impersonation; noise on ports (CVE-2021-34824, -2022-23635) | lateen-control `hostile_callers`, `discovery` |
//! | the admin port from a browser, keys in dumps | `admin` |

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
