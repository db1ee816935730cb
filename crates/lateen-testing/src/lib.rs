//! For tests only: scripted peers, fake upstreams, namespaces and waiting on conditions.
