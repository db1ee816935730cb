//! Traces: which requests become spans, which trace they belong to, what they say, and how collectors are told.

mod context;
mod decision;
mod otlp;
mod span;
mod tags;
mod tracer;
mod zipkin;

pub(crate) use context::Context;
pub(crate) use otlp::{attribute, nanos, resource};
pub(crate) use span::{Ended, Trace};
pub(crate) use tags::{Custom, Tags};
pub(crate) use tracer::{NodeNames, Tracer};
