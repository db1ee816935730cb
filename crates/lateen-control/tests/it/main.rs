//! Tests of the control plane as a whole.
