//! Words about a guard, put together only when somebody reads them: a sweep of a large fleet holds back thousands of
//! remedies, most of them by the same guards, and nobody reads most of that.
//!
//! The rule: where a rule is, there its words are, as a sentence with blanks and the figures that go into them
//! ([`told!`](crate::model::told::told)). Written out, they are text, and read back they are that text: both are equal.

use super::decision::BlockedBy;
use super::ids::{ScaleSetId, TreatmentId};
use super::time::{Span, Wall};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A blank of a sentence.
const BLANK: &str = "{}";

/// The most blanks of a sentence.
const FIGURES: usize = 3;

/// What fills a blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    Count(u64),
    Span(Span),
    Date(Wall),
    Word(&'static str),
}

#[derive(Clone)]
pub struct Words(Inner);

#[derive(Clone, PartialEq, Eq)]
enum Inner {
    Sentence { sentence: &'static str, figures: [Figure; FIGURES] },
    Text(Arc<str>),
}

/// Words from a sentence and as many figures as it has blanks, which the compiler checks.
macro_rules! told {
    ($sentence:literal $(, $figure:expr)* $(,)?) => {{
        const { assert!($crate::model::told::blanks($sentence) == <[&str]>::len(&[$(stringify!($figure)),*])) }
        $crate::model::told::Words::sentence($sentence, [$($crate::model::told::Figure::from($figure)),*])
    }};
}
pub(crate) use told;

/// How many blanks a sentence has.
pub(crate) const fn blanks(sentence: &str) -> usize {
    let bytes = sentence.as_bytes();
    let (mut at, mut found) = (1, 0);
    while at < bytes.len() {
        if bytes[at - 1] == b'{' && bytes[at] == b'}' {
            found += 1;
        }
        at += 1;
    }
    found
}

impl Words {
    /// For [`told!`], which counts the blanks.
    pub(crate) fn sentence<const N: usize>(sentence: &'static str, with: [Figure; N]) -> Self {
        const { assert!(N <= FIGURES) }
        let mut figures = [Figure::Count(0); FIGURES];
        for (place, figure) in figures.iter_mut().zip(with) {
            *place = figure;
        }
        Self(Inner::Sentence { sentence, figures })
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Text(text) => f.write_str(text),
            Inner::Sentence { sentence, figures } => {
                let mut figures = figures.iter();
                for (number, part) in sentence.split(BLANK).enumerate() {
                    if number > 0 {
                        figures.next().map_or(Ok(()), |figure| figure.fmt(f))?;
                    }
                    f.write_str(part)?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(number) => number.fmt(f),
            Self::Span(span) => span.fmt(f),
            Self::Date(date) => date.fmt(f),
            Self::Word(word) => f.write_str(word),
        }
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl PartialEq for Words {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.to_string() == other.to_string()
    }
}

impl Eq for Words {}

impl PartialEq<&str> for Words {
    fn eq(&self, other: &&str) -> bool {
        self.to_string() == **other
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl From<String> for Words {
    fn from(text: String) -> Self {
        Self(Inner::Text(text.into()))
    }
}

impl From<u64> for Figure {
    fn from(number: u64) -> Self {
        Self::Count(number)
    }
}

impl From<u32> for Figure {
    fn from(number: u32) -> Self {
        Self::Count(number.into())
    }
}

impl From<usize> for Figure {
    fn from(number: usize) -> Self {
        Self::Count(u64::try_from(number).unwrap_or(u64::MAX))
    }
}

impl From<ScaleSetId> for Figure {
    fn from(set: ScaleSetId) -> Self {
        Self::Count(set.0)
    }
}

impl From<TreatmentId> for Figure {
    fn from(treatment: TreatmentId) -> Self {
        Self::Count(treatment.0)
    }
}

impl From<Span> for Figure {
    fn from(span: Span) -> Self {
        Self::Span(span)
    }
}

impl From<Wall> for Figure {
    fn from(date: Wall) -> Self {
        Self::Date(date)
    }
}

impl From<&'static str> for Figure {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

/// The guards that hold one remedy back. Sets that the same guards hold back share them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Guards(Arc<[BlockedBy]>);

impl Deref for Guards {
    type Target = [BlockedBy];

    fn deref(&self) -> &[BlockedBy] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Guards {
    type Item = &'a BlockedBy;
    type IntoIter = std::slice::Iter<'a, BlockedBy>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl From<Vec<BlockedBy>> for Guards {
    fn from(guards: Vec<BlockedBy>) -> Self {
        Self(guards.into())
    }
}

impl From<&[BlockedBy]> for Guards {
    fn from(guards: &[BlockedBy]) -> Self {
        Self(guards.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blank_gets_its_figure_in_its_form() {
        let told = told!("{} of {}, from {}", Span::secs(90), 3_u32, Wall(60_000));
        assert_eq!(told, "1 min 30 s of 3, from 00:01:00");
        assert_eq!(told!("{}{} at once", TreatmentId(7), "th").to_string(), "7th at once");
        assert_eq!(told!("nothing to fill in"), "nothing to fill in");
    }

    #[test]
    fn words_that_read_the_same_are_equal_whatever_they_are_made_of() {
        let told = told!("{} of {}", 1_u32, 2_u32);
        assert_eq!(told, Words::from("1 of 2".to_owned()));
        assert_eq!(told, told!("{} of 2", 1_u64));
        assert_ne!(told, told!("{} of {}", 2_u32, 2_u32));
    }

    #[test]
    fn written_out_they_are_text_and_read_back_they_are_equal() {
        let told = told!("{} of {}", Span::secs(5), Span::mins(1));
        let json = serde_json::to_string(&told).unwrap();
        assert_eq!(json, r#""5 s of 1 min""#);
        assert_eq!(serde_json::from_str::<Words>(&json).unwrap(), told);
    }
}
