//! Another machine's clock against ours, by the `Date` of its answers.
//!
//! The date has whole seconds and was written between our sending and our receiving, so one answer gives a range;
//! several narrow it. Only a range that excludes zero shows a difference.

use medic_core::model::{Span, Wall};

/// The range of what the other clock is ahead of ours, in milliseconds; negative when it is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew {
    least: i64,
    most: i64,
}

impl Skew {
    /// From one exchange. `date` is what the other machine said.
    #[must_use]
    pub fn of(sent: Wall, received: Wall, date: Wall) -> Self {
        let second = Span::secs(1).as_millis();
        Self { least: ahead(date, received), most: ahead(Wall(date.0.saturating_add(second)), sent) }
    }

    /// What both allow; where they contradict each other a clock was set, and the later one holds.
    #[must_use]
    pub fn narrowed(self, later: Self) -> Self {
        let both = Self { least: self.least.max(later.least), most: self.most.min(later.most) };
        if both.least <= both.most { both } else { later }
    }

    /// The least difference that explains what was seen.
    pub fn at_least(self) -> Span {
        if self.least > 0 {
            Span(self.least.unsigned_abs())
        } else if self.most < 0 {
            Span(self.most.unsigned_abs())
        } else {
            Span::ZERO
        }
    }

    /// Whether the other clock is ahead, when there is a difference.
    #[must_use]
    pub const fn is_ahead(self) -> bool {
        self.least > 0
    }
}

fn ahead(other: Wall, ours: Wall) -> i64 {
    let signed = |wall: Wall| i64::try_from(wall.0).unwrap_or(i64::MAX);
    signed(other).saturating_sub(signed(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_is_zero_within_the_precision_of_dates() {
        // Answered at 5.9 s by a clock that agrees: the date says 5 s.
        assert_eq!(Skew::of(Wall(5_850), Wall(5_950), Wall(5_000)).at_least(), Span::ZERO);
        // A slow answer hides up to its own length.
        assert_eq!(Skew::of(Wall(1_000), Wall(9_000), Wall(4_000)).at_least(), Span::ZERO);
    }

    #[test]
    fn skew_has_a_direction() {
        let ahead = Skew::of(Wall(10_000), Wall(10_100), Wall(70_000));
        assert_eq!((ahead.at_least(), ahead.is_ahead()), (Span::millis(59_900), true));
        let behind = Skew::of(Wall(100_000), Wall(100_100), Wall(40_000));
        assert_eq!((behind.at_least(), behind.is_ahead()), (Span::secs(59), false));
    }

    #[test]
    fn skew_is_narrowed_by_answers_and_follows_a_set_clock() {
        let wide = Skew::of(Wall(10_000), Wall(14_000), Wall(16_000));
        let narrow = Skew::of(Wall(20_000), Wall(20_100), Wall(25_000));
        assert_eq!(wide.narrowed(narrow).at_least(), Span::millis(4_900));
        let set = Skew::of(Wall(30_000), Wall(30_100), Wall(30_000));
        assert_eq!(wide.narrowed(narrow).narrowed(set).at_least(), Span::ZERO);
    }
}
