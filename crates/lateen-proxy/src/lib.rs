//! The data plane: workers, listeners, codecs, TLS, pools, drain, telemetry and admin.
