//! Starting: the command line, the bootstrap file, the workers, and the end.

pub mod arguments;
pub mod env;
mod run;

pub use run::run;
