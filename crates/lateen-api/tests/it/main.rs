//! The API's kinds against texts: real samples, mistakes with their places, hostile input.

mod samples;
