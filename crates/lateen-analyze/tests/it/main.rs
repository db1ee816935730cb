//! The checks, on cases of our own and on those that Istio tests its analyzers with.

mod codes;
mod istio;
