//! Diagnosing: observations → one finding per set. Pure; one function per diagnosis, in stated order.
