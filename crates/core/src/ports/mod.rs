//! What the rules need from the world, as traits: [`read`] cannot change anything anywhere, [`write`] can.

pub mod read;
pub mod write;
