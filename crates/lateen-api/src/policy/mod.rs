//! `policy.lateen.dev`: kinds of our own, for what Istio's API has no words for.

pub mod rate_limit;

pub use rate_limit::RateLimit;
