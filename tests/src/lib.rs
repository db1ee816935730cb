//! What the whole-program tests share: where the built programs and the samples lie.
