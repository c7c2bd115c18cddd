//! The simulator's promises, one by one, by the checklist of `docs/reference/actions-service.md` §9, with raw requests.

mod faults;
mod queue;
mod sessions;
mod sets;
mod tokens;
