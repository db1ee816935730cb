//! How traffic moves: VirtualServices, DestinationRules and Gateways, with their precedence and merging.

pub(crate) mod destination_rule;
pub(crate) mod gateway;
pub(crate) mod virtual_service;

pub use destination_rule::DestinationRule;
pub use gateway::{GatewayServer, MergedGateway, gateway_name};
pub use virtual_service::{HttpRule, VirtualService};
