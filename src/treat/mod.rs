//! Treating: the pure machines of a remedy, the only ports that write, and the driver that journals first.

pub mod ports;
