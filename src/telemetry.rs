//! Tracing: format, level, redaction.
