//! `policy.lateen.dev`: kinds of our own, for what Istio's API has no words for.

pub mod egress;
pub mod rate_limit;

pub use egress::Egress;
pub use rate_limit::RateLimit;
