//! Starting: the command line, where the configuration comes from, the workers, and the end.

mod ads;
pub mod arguments;
pub mod env;
mod mesh;
mod pages;
mod run;
mod workers;

use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;

pub use run::run;

/// What the proxy calls itself where it presents itself as a node.
const USER_AGENT: &str = "lateen-proxy";

fn user_agent_version() -> UserAgentVersionType {
    UserAgentVersionType::UserAgentVersion(env!("CARGO_PKG_VERSION").to_owned())
}
