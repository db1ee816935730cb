//! From a Mesh and one proxy's view of it to xDS resources.
