//! The proxy among programs that nobody here wrote: curl, nghttp2's tools, Node, gRPC and a real Envoy, as clients, as servers
//! and as the other proxy. `cargo xtask test` installs them.

mod bed;
mod certificates;
mod curl;
mod grpc;
mod nghttp2;
mod node;
mod tools;
