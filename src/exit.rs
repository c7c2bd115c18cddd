//! The exit codes of the contract (design §9).
