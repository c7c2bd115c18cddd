//! What leaves the process: Prometheus metrics, the HTTP server, the status page.
