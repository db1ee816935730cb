//! SPIFFE identities, the certificate authority, CSRs, rotation, trust bundles and TLS configurations.
