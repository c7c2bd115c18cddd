//! All texts for people, made from typed facts.

pub mod decision;
pub mod guards;
pub mod incident;
pub mod rules;
pub mod sources;
pub mod treatment;
pub mod words;
