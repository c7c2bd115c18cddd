//! Dates to the nanosecond, as Go writes them (`docs/reference/garm-api.md` §2). The simulation counts milliseconds;
//! below that a [`Ticker`] makes every date later than the one before, no two writes share an `updated_at`.

use crate::random::scramble;
use medic_core::model::Wall;

/// Nanoseconds since the epoch. Zero stands for Go's zero time, which means "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Stamp(u64);

impl Stamp {
    pub(super) const NEVER: Self = Self(0);

    /// RFC 3339 with as many decimals as needed.
    pub(super) fn nano(self) -> String {
        self.timestamp().map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |timestamp| timestamp.to_string())
    }

    /// RFC 3339 with three decimals, as slog's text has it.
    pub(super) fn milli(self) -> String {
        self.timestamp().map_or_else(|| "0001-01-01T00:00:00.000Z".to_owned(), |timestamp| format!("{timestamp:.3}"))
    }

    fn timestamp(self) -> Option<jiff::Timestamp> {
        (self != Self::NEVER).then(|| jiff::Timestamp::from_nanosecond(i128::from(self.0)).ok()).flatten()
    }
}

/// Gives out dates that only grow.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ticker {
    last: u64,
}

impl Ticker {
    /// The last date given out.
    pub(super) const fn latest(self) -> Stamp {
        Stamp(self.last)
    }

    pub(super) fn at(&mut self, now: Wall) -> Stamp {
        let jitter = scramble(self.last) % 900;
        let earliest = now.0.saturating_mul(1_000_000).saturating_add(1_000 + jitter);
        self.last = earliest.max(self.last.saturating_add(1 + jitter));
        Stamp(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_written_as_go_does_and_never_repeat() {
        let mut ticker = Ticker::default();
        let now = Wall(1_795_459_532_159);
        let dates: Vec<Stamp> = (0..100).map(|_| ticker.at(now)).collect();
        assert!(dates.windows(2).all(|pair| pair[0] < pair[1]));
        let text = dates[0].nano();
        assert!(text.starts_with("2026-11-23T18:45:32.159") && text.ends_with('Z') && text.len() > 24, "{text}");
        assert_eq!(dates[0].milli(), "2026-11-23T18:45:32.159Z");
        assert_eq!(Stamp::NEVER.nano(), "0001-01-01T00:00:00Z");
    }
}
