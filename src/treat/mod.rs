//! Treating: the pure machines of a remedy, the only ports that write, and the driver that journals first.

pub mod act;
pub mod deletion;
pub mod driver;
pub mod machine;
pub mod ports;
pub mod session_probe;
pub mod toggle;
pub mod verify;

#[cfg(test)]
mod explore;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod world;
