//! Two things in the order of the same keys, walked side by side: for a fleet of thousands that is far cheaper than a
//! search for each set.

use std::borrow::Borrow;
use std::iter::Peekable;

/// A sorted sequence that is asked for keys in rising order.
pub(crate) struct Along<I: Iterator>(Peekable<I>);

impl<K, V, I: Iterator<Item = (K, V)>> Along<I> {
    pub(crate) fn of(sorted: impl IntoIterator<IntoIter = I>) -> Self {
        Self(sorted.into_iter().peekable())
    }

    /// The value of this key, which is greater than all that were asked for before; `None` where there is none.
    pub(crate) fn at<Q: Ord>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        while self.0.next_if(|(next, _)| next.borrow() < key).is_some() {}
        self.0.next_if(|(next, _)| next.borrow() == key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_on_either_side_are_passed_over() {
        let mut along = Along::of([(2, 'b'), (3, 'c'), (7, 'g')]);
        assert_eq!([1, 2, 5, 7, 9].map(|key| along.at(&key)), [None, Some('b'), None, Some('g'), None]);
    }
}
