//! Objects of the Gateway API: what they mean in the words of Istio's kinds, and what their status is to say.

mod case;
mod fields;
mod istio;
mod own;
