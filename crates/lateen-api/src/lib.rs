//! The kinds users write: parsing with positions, defaults and validation.
