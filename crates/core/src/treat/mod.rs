//! Treating: the pure machines of a remedy, the only ports that write, and the driver that journals first.

pub mod audit;
pub mod deletion;
pub mod machine;
pub mod session_check;
pub mod toggle;
pub mod verify;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
