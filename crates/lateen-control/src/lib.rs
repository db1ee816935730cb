//! The control plane: sources, store, push, injector, certificate and discovery services, API.
