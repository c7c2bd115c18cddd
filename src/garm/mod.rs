//! The GARM adapter: API, metrics text, goroutine dumps, log. Wire types stay inside.
