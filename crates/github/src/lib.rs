//! The GitHub adapter (`docs/reference/actions-service.md`): authentication, registration, the Actions service. Wire
//! types stay inside.
//!
//! ```text
//! access        token file or App key → REST token        (per `[[github]]` table)
//! registration  REST token → registration token → the service's address and admin token  (per entity)
//! client        the ports: list sets, open and delete message sessions
//! ```
//!
//! Besides: [`address`] (URLs), `app_jwt` (RS256), `refusal` (GitHub's errors), `wire` (JSON).

pub mod access;
pub mod address;
mod app_jwt;
pub mod client;
mod refusal;
mod registration;
mod wire;

pub use access::{Access, AccessOptions, Allowances, Credential, SecretSource, Wires};
pub use client::GithubClient;
