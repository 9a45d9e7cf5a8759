//! Values by key, of which those used last are kept.

use crate::Result;

/// At most `most` values, those used last at the end.
pub(super) struct Recent<K, V> {
    most: usize,
    values: Vec<(K, V)>,
}

impl<K: PartialEq, V> Recent<K, V> {
    pub fn new(most: usize) -> Self {
        Self { most, values: Vec::new() }
    }

    /// Whether there is a value of `key`.
    pub fn has(&self, key: &K) -> bool {
        self.values.iter().any(|(other, _)| other == key)
    }

    /// Makes room for one more value.
    pub fn make_room(&mut self) {
        self.values.drain(..(self.values.len() + 1).saturating_sub(self.most));
    }

    pub fn clear(&mut self) {
        self.values.clear();
    }

    /// The value of `key`, made by `make` if there is none.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get(&mut self, key: K, make: impl FnOnce() -> Result<V>) -> Result<&mut V> {
        let used = match self.values.iter().position(|(other, _)| *other == key) {
            Some(place) => self.values.remove(place),
            None => {
                self.make_room();
                (key, make()?)
            }
        };
        self.values.push(used);
        let last = self.values.len() - 1;
        Ok(&mut self.values[last].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn what_was_not_used_for_longest_goes() {
        let mut recent = Recent::new(2);
        for (key, expected) in [(1, 10), (2, 20), (1, 10), (3, 30)] {
            assert_eq!(*recent.get(key, || Ok(10 * key)).unwrap(), expected);
        }
        assert_eq!([1, 2, 3].map(|key| recent.has(&key)), [true, false, true]);
        assert_eq!(*recent.get(1, || unreachable!()).unwrap(), 10);
        assert!(recent.get(4, || Err(Error::new("memory", "full"))).is_err());
        recent.clear();
        assert!(!recent.has(&1));
    }
}
