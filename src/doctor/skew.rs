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
    /// From one exchange. `date` is the other machine's.
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
    fn skew_has_a_direction_beyond_the_precision_of_dates() {
        for (what, sent, received, date, skew) in [
            ("answered at 5.9 s by a clock that agrees: the date says 5 s", 5_850, 5_950, 5_000, (0, false)),
            ("a slow answer hides up to its own length", 1_000, 9_000, 4_000, (0, false)),
            ("ahead", 10_000, 10_100, 70_000, (59_900, true)),
            ("behind", 100_000, 100_100, 40_000, (59_000, false)),
        ] {
            let seen = Skew::of(Wall(sent), Wall(received), Wall(date));
            assert_eq!((seen.at_least().as_millis(), seen.is_ahead()), skew, "{what}");
        }
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
