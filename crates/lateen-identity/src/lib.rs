//! SPIFFE identities, the certificate authority, CSRs, rotation, trust bundles and TLS configurations.
//!
//! Invariants: nothing here opens a socket or reads a clock (times come in as arguments, except where a TLS library asks its
//! own), private keys of workloads never touch a disk, and nothing is installed process-wide: every TLS configuration
//! names its provider.

pub mod bundle;
pub mod ca;
pub mod csr;
pub mod files;
mod identity;
pub mod peer;
pub mod revocation;
pub mod rotation;
pub mod spiffe;
pub mod svid;
pub mod tls;
pub mod token;
mod workload_name;

pub use bundle::{Trust, TrustBundle};
pub use ca::CertificateAuthority;
pub use identity::{Identity, IdentityError};
pub use peer::PeerIdentity;
pub use revocation::Revocation;
pub use spiffe::SpiffeId;
pub use workload_name::{WorkloadLabels, WorkloadName};
