//! Slots with generations: the one identity every part of a reactor uses.
//!
//! A [`Key`] is `generation:32 | index:32`. Freeing a slot bumps its generation, so a key that
//! outlived its value finds nothing, whoever holds it: the poller, a timer, another thread.

/// Free-list end, and the index no slot has.
const NIL: u32 = u32::MAX;

/// Past this many slots, a vector grows by a sixteenth.
const DOUBLING_MAX: usize = 1024;

/// Makes room for one more. A large vector grows by a sixteenth instead of doubling: a server
/// with many idle connections pays for what it holds, and each element is still copied a bounded
/// number of times. A small one doubles, so as not to leave many outgrown pieces on the heap.
pub(crate) fn reserve_one<T>(vec: &mut Vec<T>) {
    let len = vec.len();
    if len == vec.capacity() {
        vec.reserve_exact(if len < DOUBLING_MAX { len.max(64) } else { len / 16 });
    }
}

/// Names a value in a [`Slab`]; never zero, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Key(u64);

impl Key {
    /// A key that names nothing.
    pub(crate) const NONE: Key = Key(0);

    fn new(generation: u32, index: u32) -> Key {
        Key(u64::from(generation) << 32 | u64::from(index))
    }

    pub(crate) fn from_bits(bits: u64) -> Key {
        Key(bits)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn index(self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

struct Entry<T> {
    /// Starts at 1 and rises with each removal. A slot whose generation is spent stays empty.
    generation: u32,
    next_free: u32,
    value: Option<T>,
}

pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free_head: u32,
    len: u32,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Slab<T> {
        Slab { entries: Vec::new(), free_head: NIL, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// One past the highest index ever used.
    pub(crate) fn slots(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if self.free_head != NIL {
            let index = self.free_head;
            let entry = &mut self.entries[index as usize];
            self.free_head = entry.next_free;
            entry.value = Some(value);
            return Key::new(entry.generation, index);
        }
        let index = u32::try_from(self.entries.len())
            .ok()
            .filter(|&index| index != NIL)
            .expect("a slab holds fewer than 2^32 - 1 slots");
        reserve_one(&mut self.entries);
        self.entries.push(Entry { generation: 1, next_free: NIL, value: Some(value) });
        Key::new(1, index)
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.index() as usize)?;
        if entry.generation != key.generation() {
            return None;
        }
        entry.value.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index() as usize)?;
        if entry.generation != key.generation() {
            return None;
        }
        entry.value.as_mut()
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.index() as usize)?;
        if entry.generation != key.generation() {
            return None;
        }
        let value = entry.value.take()?;
        self.len -= 1;
        if let Some(next) = entry.generation.checked_add(1) {
            entry.generation = next;
            entry.next_free = self.free_head;
            self.free_head = key.index();
        }
        Some(value)
    }

    /// The key of the value that lives at `index` now.
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        let entry = self.entries.get(index as usize)?;
        entry.value.as_ref()?;
        Some(Key::new(entry.generation, index))
    }

    /// The value at `index`, whatever its generation: for links kept inside the slab.
    pub(crate) fn at(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.value.as_ref()
    }

    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.value.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_key_finds_nothing_though_its_slot_is_reused() {
        let mut slab = Slab::new();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(first.index(), second.index());
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn no_key_is_zero_and_none_names_nothing() {
        let mut slab = Slab::new();
        let key = slab.insert(());
        assert_ne!(key.bits(), 0);
        assert_eq!(slab.get(Key::NONE), None);
        assert_eq!(Key::from_bits(key.bits()), key);
    }

    #[test]
    fn a_slot_with_its_last_generation_is_retired() {
        let mut slab = Slab::new();
        let key = slab.insert(1);
        slab.entries[0].generation = u32::MAX;
        let last = Key::new(u32::MAX, key.index());
        assert_eq!(slab.remove(last), Some(1));
        let next = slab.insert(2);
        assert_ne!(next.index(), key.index());
        assert_eq!(slab.get(last), None);
    }

    #[test]
    fn growth_is_bounded_to_a_sixteenth() {
        let mut slab = Slab::new();
        for i in 0..10_000 {
            slab.insert(i);
        }
        assert!(slab.entries.capacity() <= 10_000 + 10_000 / 16 + 64);
        assert_eq!(slab.slots(), 10_000);
    }
}
