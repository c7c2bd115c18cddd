//! Treating a scale set: the pure machine of each remedy. `src/engine/driver.rs` carries its requests out.
//!
//! Imports go one way: transition ← {toggle, deletion, `session_check`, verify} ← machine.

pub mod audit;
mod deletion;
pub mod machine;
mod session_check;
mod toggle;
pub mod transition;
mod verify;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
