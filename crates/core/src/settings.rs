//! What a configuration key is. [`settings!`](crate::settings) declares a table of the configuration: one entry gives a
//! key its type, default, bounds and meaning. The struct, its defaults and its list of [`Key`]s follow from it; the
//! program makes the reader, the shipped file, the schema and the documentation from that list.

use crate::model::Span;
use serde::Serialize;
use serde_json::Value;

/// What all environment variables of the program begin with.
pub const ENV_PREFIX: &str = "SCALESET_MEDIC_";

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its table.
    pub section: &'static str,
    pub name: &'static str,
    /// What it means, in one or two sentences.
    pub doc: &'static str,
    pub need: Need,
    pub takes: Takes,
}

/// What happens when a key is not given.
#[derive(Debug)]
pub enum Need {
    /// It is a mistake; with an example.
    Required(&'static str),
    /// It is not set; with an example.
    Optional(&'static str),
    /// It has this value, serialized.
    Default(fn() -> Value),
}

/// What a key takes, and how it depends on others of its table.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Takes {
    pub kind: Kind,
    pub limit: Option<Limit>,
    pub follows: Option<Follows>,
    pub risk: Option<Risk>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A duration with its unit, within bounds.
    Span(Span, Span),
    /// A list of at least one duration, each within bounds, none shorter than the one before.
    Spans(Span, Span),
    /// A whole number within bounds.
    Count(u64, u64),
    /// A share from 0 up to, but not including, 1.
    Part,
    /// A share from 0 to 1.
    Share,
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A short name that can be the value of a metric label.
    Label,
    /// Any text that is not blank.
    Text,
    /// The root address of a server.
    Url,
    /// An address to listen on.
    Listen,
    Path,
    /// A directory for what must survive a restart.
    StateDir,
    /// A file of certificates in PEM.
    Certificates,
    /// A file that holds a secret; only its path is configuration.
    SecretFile,
    /// A file that holds a private key in PEM.
    KeyFile,
    /// Log levels, by target if need be.
    Levels,
    /// A list of organisations, repositories and enterprises.
    Entities,
}

/// A key of the same table that this one must not exceed.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    AtMost(&'static str),
    Below(&'static str),
}

/// A key of the same table, declared before this one, that this one's default follows.
#[derive(Debug, Clone, Copy)]
pub enum Follows {
    /// The default is lowered to that key's value.
    Capped(&'static str),
    /// The default keeps its distance above that key's value.
    Above(&'static str),
    /// The default is 0 where that key is given.
    ZeroWith(&'static str),
}

impl Follows {
    pub const fn leader(self) -> &'static str {
        match self {
            Self::Capped(leader) | Self::Above(leader) | Self::ZeroWith(leader) => leader,
        }
    }
}

/// A value that is allowed and rarely meant.
#[derive(Debug, Clone, Copy)]
pub struct Risk {
    pub when: Risky,
    /// What can happen.
    pub why: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub enum Risky {
    /// `true` is.
    On,
    Below(Span),
    Above(Span),
}

impl Takes {
    pub const fn a(kind: Kind) -> Self {
        Self { kind, limit: None, follows: None, risk: None }
    }
    pub const fn span(least: Span, most: Span) -> Self {
        Self::a(Kind::Span(least, most))
    }
    pub const fn count(least: u64, most: u64) -> Self {
        Self::a(Kind::Count(least, most))
    }
    pub const fn at_most(mut self, key: &'static str) -> Self {
        self.limit = Some(Limit::AtMost(key));
        self
    }
    pub const fn below(mut self, key: &'static str) -> Self {
        self.limit = Some(Limit::Below(key));
        self
    }
    pub const fn follows(mut self, follows: Follows) -> Self {
        self.follows = Some(follows);
        self
    }
    pub const fn risky(mut self, when: Risky, why: &'static str) -> Self {
        self.risk = Some(Risk { when, why });
        self
    }
}

impl Key {
    /// The environment variable that sets it.
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}_{}", self.section.to_uppercase(), self.name.to_uppercase())
    }

    /// `section.name`.
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    pub fn default(&self) -> Option<Value> {
        match self.need {
            Need::Default(value) => Some(value()),
            Need::Required(_) | Need::Optional(_) => None,
        }
    }

    /// Why a value of it, serialized, is risky.
    pub fn risk_of(&self, value: &Value) -> Option<&'static str> {
        let risk = self.takes.risk?;
        let is_risky = match risk.when {
            Risky::On => value == &Value::Bool(true),
            Risky::Below(least) => value.as_u64().is_some_and(|millis| Span(millis) < least),
            Risky::Above(most) => value.as_u64().is_some_and(|millis| Span(millis) > most),
        };
        is_risky.then_some(risk.why)
    }
}

/// The risky settings of a table: the key, its value, and why.
pub fn risks(
    keys: &'static [Key],
    table: &impl Serialize,
) -> impl Iterator<Item = (&'static Key, Value, &'static str)> {
    let table = json(table);
    keys.iter().filter_map(move |key| {
        let value = table.get(key.name)?;
        Some((key, value.clone(), key.risk_of(value)?))
    })
}

/// A value, serialized.
pub fn json<T: Serialize>(value: &T) -> Value {
    // Settings have names for fields and no other keys, which is all that can fail.
    serde_json::to_value(value).unwrap_or_default()
}

/// Declares a table of the configuration: `[name]` where all keys have defaults, `[[name]]` where the table repeats.
///
/// An entry reads `field: Type = default(VALUE), TAKES;`, or `required("EXAMPLE")` or `optional("EXAMPLE")` in place of
/// the default. `TAKES` is a [`Takes`](crate::settings::Takes). The name of the field is the name of the key, and its
/// doc comment is the meaning that users read.
#[macro_export]
macro_rules! settings {
    (@need default $type:ty, $value:expr) => {
        $crate::settings::Need::Default(|| $crate::settings::json::<$type>(&$value))
    };
    (@need required $type:ty, $value:expr) => { $crate::settings::Need::Required($value) };
    (@need optional $type:ty, $value:expr) => { $crate::settings::Need::Optional($value) };
    ($(#[$meta:meta])* pub struct $name:ident [$section:ident] {
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty = default($value:expr), $takes:expr;)+
    }) => {
        $crate::settings! {
            $(#[$meta])* pub struct $name [[$section]] {
                $($(#[doc = $doc])+ $field: $type = default($value), $takes;)+
            }
        }
        impl Default for $name {
            fn default() -> Self { Self { $($field: $value,)+ } }
        }
    };
    ($(#[$meta:meta])* pub struct $name:ident [[$section:ident]] {
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $need:ident($value:expr), $takes:expr;)+
    }) => {
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        $(#[$meta])*
        pub struct $name { $($(#[doc = $doc])+ pub $field: $type,)+ }
        impl $name {
            /// Its keys, in the order in which they are shown.
            pub const KEYS: &'static [$crate::settings::Key] = &[$($crate::settings::Key {
                section: stringify!($section),
                name: stringify!($field),
                doc: concat!($($doc),+).trim_ascii_start(),
                need: $crate::settings!(@need $need $type, $value),
                takes: $takes,
            },)+];
        }
    };
}
