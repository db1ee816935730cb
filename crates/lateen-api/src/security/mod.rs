//! `security.istio.io`: who may talk to whom, and how it is proven.

pub mod authorization_policy;
pub mod key_set;
pub mod peer_authentication;
pub mod request_authentication;

pub use authorization_policy::AuthorizationPolicy;
pub use peer_authentication::PeerAuthentication;
pub use request_authentication::RequestAuthentication;

pub use crate::selector::TargetRef;
