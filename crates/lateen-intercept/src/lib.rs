//! Network namespaces, redirect rules by netlink, and DNS for pods.
