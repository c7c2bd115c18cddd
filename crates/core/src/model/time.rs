//! Time as data. Two clocks that are never mixed: [`Wall`] dates facts and records and survives a restart; [`Mono`]
//! measures waiting inside one process. All arithmetic saturates.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;

/// Milliseconds since the Unix epoch, by the machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
#[must_use]
pub struct Wall(pub u64);

/// Milliseconds of a monotonic clock with an arbitrary origin in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
#[must_use]
pub struct Mono(pub u64);

/// Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Span(pub u64);

/// Names the form of a date that leaves the process, in `#[serde(with = …)]`: RFC 3339 in UTC with milliseconds. Plain
/// milliseconds are read too, as recordings of earlier releases hold them.
pub struct Rfc3339;

/// [`Rfc3339`] for a date that may be absent.
pub struct OptionalRfc3339;

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenDate {
    Millis(u64),
    Text(String),
}

impl WrittenDate {
    fn read<T: From<Wall>, E: serde::de::Error>(self) -> Result<T, E> {
        let at = match self {
            Self::Millis(millis) => Some(Wall(millis)),
            Self::Text(text) => Wall::parse(&text).or_else(|| text.parse().ok().map(Wall)),
        };
        at.map(T::from).ok_or_else(|| E::custom("not a date in RFC 3339"))
    }
}

impl Rfc3339 {
    pub fn serialize<T: Copy + Into<Wall>, S: Serializer>(at: &T, to: S) -> Result<S::Ok, S::Error> {
        let at: Wall = (*at).into();
        to.collect_str(&at.rfc3339())
    }

    pub fn deserialize<'de, T: From<Wall>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        WrittenDate::deserialize(from)?.read()
    }
}

impl OptionalRfc3339 {
    pub fn serialize<T: Copy + Into<Wall>, S: Serializer>(at: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => Rfc3339::serialize(at, to),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, T: From<Wall>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
        Option::<WrittenDate>::deserialize(from)?.map(WrittenDate::read).transpose()
    }
}

impl JsonSchema for Rfc3339 {
    fn schema_name() -> Cow<'static, str> {
        "Date".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "description": "RFC 3339, in UTC, with milliseconds."})
    }
}

impl JsonSchema for OptionalRfc3339 {
    fn schema_name() -> Cow<'static, str> {
        "OptionalDate".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Option::<Rfc3339>::json_schema(generator)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Now {
    /// For records and for comparison with other machines' dates.
    pub wall: Wall,
    pub mono: Mono,
}

impl Span {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self(u64::MAX);

    pub const fn secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }
    pub const fn millis(millis: u64) -> Self {
        Self(millis)
    }
    pub const fn mins(minutes: u64) -> Self {
        Self::secs(minutes.saturating_mul(60))
    }
    pub const fn hours(hours: u64) -> Self {
        Self::mins(hours.saturating_mul(60))
    }
    pub const fn as_millis(self) -> u64 {
        self.0
    }
    #[expect(clippy::cast_precision_loss, reason = "milliseconds beyond 2^53 are 285,000 years")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
    /// What is left after `other`; at least zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
    #[must_use]
    pub const fn times(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }
}

impl Wall {
    pub fn parse(text: &str) -> Option<Self> {
        let at: jiff::Timestamp = text.trim().parse().ok()?;
        u64::try_from(at.as_millisecond()).ok().map(Self)
    }
    fn stamp(self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_millisecond(i64::try_from(self.0).ok()?).ok()
    }
    /// With the day, in seconds, as RFC 3339: for what may be days old. A date that no calendar has is its number.
    pub fn date(self) -> String {
        self.stamp().map_or_else(|| self.0.to_string(), |stamp| format!("{stamp:.0}"))
    }
    /// RFC 3339 with milliseconds. A date that no calendar has is its number.
    pub fn rfc3339(self) -> String {
        self.stamp().map_or_else(|| self.0.to_string(), |stamp| format!("{stamp:.3}"))
    }
    pub const fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
    pub const fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
    /// Time passed since `earlier`; zero when the clock was set back.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
    /// `YYYY-MM-DD HH:MM:SS` in UTC, for what may be read on another day.
    pub fn full(self) -> String {
        match self.date().split_once('T') {
            Some((day, _)) => format!("{day} {self}"),
            None => self.to_string(),
        }
    }
    /// With its day only where that is not today's.
    pub fn near(self, now: Self) -> String {
        const DAY: u64 = 24 * 3600 * 1000;
        if self.0 / DAY == now.0 / DAY { self.to_string() } else { self.full() }
    }
    #[expect(clippy::cast_precision_loss, reason = "milliseconds beyond 2^53 are 285,000 years")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl Mono {
    pub const fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
    /// Time passed since `earlier`; zero when `earlier` is ahead.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl From<Span> for std::time::Duration {
    fn from(span: Span) -> Self {
        Self::from_millis(span.0)
    }
}

impl From<std::time::Duration> for Span {
    fn from(duration: std::time::Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

/// `850 ms`, `12 s`, `3 min`, `3 min 20 s`, `2 h 5 min`.
impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0 / 1000;
        let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        match (hours, minutes, rest) {
            (0, 0, 0) => write!(f, "{} ms", self.0),
            (0, 0, s) => write!(f, "{s} s"),
            (0, m, 0) => write!(f, "{m} min"),
            (0, m, s) => write!(f, "{m} min {s} s"),
            (h, 0, _) => write!(f, "{h} h"),
            (h, m, _) => write!(f, "{h} h {m} min"),
        }
    }
}

/// `HH:MM:SS` in UTC, as in a log.
impl std::fmt::Display for Wall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0 / 1000;
        write!(f, "{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Wall(5).since(Wall(9)), Span::ZERO);
        assert_eq!(Wall(u64::MAX).plus(Span(1)), Wall(u64::MAX));
        assert_eq!(Span::MAX.times(3), Span::MAX);
        assert_eq!(Mono(1).since(Mono(2)), Span::ZERO);
    }

    #[test]
    fn near_shows_the_day_of_another_day() {
        let at = Wall::parse("2026-11-24T16:19:04Z").unwrap();
        assert_eq!(at.near(at.plus(Span::mins(5))), "16:19:04");
        assert_eq!(at.near(at.plus(Span::hours(24))), "2026-11-24 16:19:04");
        assert_eq!(Wall(u64::MAX).full(), Wall(u64::MAX).to_string(), "no calendar goes that far");
    }

    #[test]
    fn date_has_its_day() {
        assert_eq!(Wall(1_764_000_000_999).date(), "2025-11-24T16:00:00Z");
        assert_eq!(Wall(u64::MAX).date(), u64::MAX.to_string());
    }

    #[test]
    fn span_display_uses_two_units_at_most() {
        for (span, text) in [
            (Span(850), "850 ms"),
            (Span::secs(12), "12 s"),
            (Span::mins(3), "3 min"),
            (Span::secs(200), "3 min 20 s"),
            (Span::mins(125), "2 h 5 min"),
        ] {
            assert_eq!(span.to_string(), text);
        }
    }
}
