//! A JSON list of bounded length. A body's bound alone does not bound the memory: the smallest objects grow a
//! hundredfold when they are parsed. A list that is too long is refused at its first surplus entry.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The most entries of a list of scale sets, instances and the like: far more than the largest fleet known.
pub const ENTRIES_MAX: usize = 50_000;

#[derive(Debug)]
pub struct List<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

struct Entries<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            if list.len() >= ENTRIES_MAX {
                return Err(A::Error::custom(format_args!("a list of more than {ENTRIES_MAX} entries is not read")));
            }
            list.push(entry);
        }
        Ok(List(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_beyond_its_bound_is_refused() {
        let list = |entries: usize| format!("[{}]", vec!["1"; entries].join(","));
        assert_eq!(serde_json::from_str::<List<u8>>(&list(50_000)).unwrap().0.len(), 50_000);
        let error = serde_json::from_str::<List<u8>>(&list(50_001)).unwrap_err().to_string();
        assert!(error.contains("a list of more than 50000 entries is not read"), "{error}");
    }
}
