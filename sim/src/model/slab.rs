//! A list whose places are used again, and whose ids are not.

/// Names one entry for ever: an event that comes too late finds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> Id {
        if let Some(index) = self.free.pop()
            && let Some((generation, place)) = self.entries.get_mut(index as usize)
        {
            *place = Some(value);
            return Id { index, generation: *generation };
        }
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push((0, Some(value)));
        Id { index, generation: 0 }
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let (generation, value) = self.entries.get_mut(id.index as usize)?;
        value.as_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn get(&self, id: Id) -> Option<&T> {
        let (generation, value) = self.entries.get(id.index as usize)?;
        value.as_ref().filter(|_| *generation == id.generation)
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        let (generation, value) = self.entries.get_mut(id.index as usize)?;
        if *generation != id.generation {
            return None;
        }
        let value = value.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(id.index);
        Some(value)
    }

    /// In the order of their places.
    pub(super) fn ids(&self) -> Vec<Id> {
        let entries = (0_u32..).zip(&self.entries);
        let held = entries.filter(|(_, (_, value))| value.is_some());
        held.map(|(index, (generation, _))| Id { index, generation: *generation }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_and_its_old_id_finds_nobody() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        let c = slab.insert('c');
        assert_eq!((slab.get(a), slab.get(b), slab.get(c)), (None, Some(&'b'), Some(&'c')));
        assert_eq!((slab.remove(a), slab.ids().len()), (None, 2));
    }
}
