//! Starting: the command line, where the configuration comes from, the workers, and the end.

pub mod arguments;
pub mod env;
mod mesh;
mod run;
mod workers;

pub use run::run;
