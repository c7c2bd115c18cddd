//! Acting: treatments as a pure machine, and the driver that is the only caller of writes.

pub mod ports;
