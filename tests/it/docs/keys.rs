//! The tables of `docs/configuration.md`: every key, and which keys must not contradict each other.

use super::{code, table};
use medic_core::settings::{Key, Limit, Need};
use scaleset_medic::config::{Section, describe, kind};

/// The keys of a section.
pub(super) fn of(section: Section) -> String {
    let rows = section.keys().iter().map(|key| {
        let words = kind::words(key.takes.kind);
        [code(key.name), words.noun.to_owned(), default(key), words.bounds, describe::meaning(key)]
    });
    table(["key", "type", "default", "allowed", "meaning"], rows)
}

fn default(key: &Key) -> String {
    let follows = key.takes.follows.map_or_else(String::new, |follows| format!("; follows `{}`", follows.leader()));
    match key.need {
        Need::Required(_) => "required".to_owned(),
        Need::Optional(_) => "not set".to_owned(),
        Need::Default(value) => format!("{}{follows}", code(kind::toml(key.takes.kind, &value()))),
    }
}

/// Which durations must not be longer than which others.
pub(super) fn limits() -> String {
    let keys = Section::ALL.iter().flat_map(|section| section.keys());
    let rows = keys.filter_map(|key| {
        let (words, high) = match key.takes.limit? {
            Limit::AtMost(high) => ("at most", high),
            Limit::Below(high) => ("less than", high),
        };
        Some([code(key.dotted()), words.to_owned(), code(format!("{}.{high}", key.section))])
    });
    table(["this", "must be", "that"], rows)
}
