//! Time as a port: code that needs the time is given a [`Now`], or this trait.

use crate::model::{Now, Span};
use async_trait::async_trait;

/// A source of time and of waiting.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Both clocks, read together.
    fn now(&self) -> Now;
    async fn sleep(&self, span: Span);
}
