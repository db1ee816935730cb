//! Tests of the control plane as a whole: files in, answers and resources out.

mod api;
mod certificates;
mod directory;
mod discovery;
mod world;
