//! What the rules need from the world, as traits: [`read`] changes nothing anywhere, [`write`] does.

pub mod read;
pub mod write;
