//! Deciding: finding + history + policy → act, watch, withhold or escalate. Pure; one rule, one file.

pub mod policy;
