//! All texts for people, made from typed facts.

pub mod exit;
pub mod guards;
pub mod incident;
pub mod request;
pub mod rules;
pub mod sources;
#[cfg(test)]
pub(crate) mod testing;
pub mod words;
