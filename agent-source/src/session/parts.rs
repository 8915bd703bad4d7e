//! Parts of the seed that are still to be sent, shared by its lanes.

use engines::source::Part;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
};

/// A part, and where in it to begin.
pub(super) type Left = (Part, u64);

/// See the module.
pub(super) struct Parts {
    /// Whether a lane takes parts of an object that another one is at.
    shared: bool,
    todo: Mutex<Todo>,
}

struct Todo {
    /// The objects that no lane is at, with their parts.
    waiting: VecDeque<VecDeque<Left>>,
    /// What is left of the objects that lanes are at.
    at: BTreeMap<u32, VecDeque<Left>>,
}

impl Parts {
    /// Parts in the order in which they should be sent, those of one object one after the other.
    pub(super) fn new(parts: impl IntoIterator<Item = Left>, shared: bool) -> Self {
        let mut waiting: VecDeque<VecDeque<Left>> = VecDeque::new();
        for part in parts {
            match waiting.back_mut() {
                Some(last) if last.back().is_some_and(|(other, _)| other.object == part.0.object) => {
                    last.push_back(part);
                }
                _ => waiting.push_back(VecDeque::from([part])),
            }
        }
        Self { shared, todo: Mutex::new(Todo { waiting, at: BTreeMap::new() }) }
    }

    /// The next part for a lane: of the object it is at, else of one that no lane is at, else of the one with the most left.
    ///
    /// Two sessions of a server that load one table wait for each other whenever it grows, so they keep apart as long as
    /// they can.
    pub(super) fn next(&self, lane: u32) -> Option<Left> {
        let mut todo = self.todo.lock().expect("no code panics while it holds this lock");
        let Todo { waiting, at } = &mut *todo;
        let mine = at.entry(lane).or_default();
        if mine.is_empty() {
            *mine = waiting.pop_front().unwrap_or_default();
        }
        let next = mine.pop_front();
        if next.is_some() || !self.shared {
            return next;
        }
        at.values_mut().max_by_key(|parts| parts.len())?.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(shared: bool) -> Parts {
        let part = |part, object: &str| (Part { part, object: object.to_owned(), bytes: 1 }, 0);
        Parts::new([part(0, "s"), part(1, "a"), part(2, "a"), part(3, "a"), part(4, "b"), part(5, "b")], shared)
    }

    fn next<const N: usize>(parts: &Parts, lanes: [u32; N]) -> [Option<u32>; N] {
        lanes.map(|lane| parts.next(lane).map(|(part, _)| part.part))
    }

    #[test]
    fn lanes_keep_out_of_each_others_objects() {
        let parts = parts(true);
        assert_eq!(next(&parts, [1, 2]), [Some(0), Some(1)]);
        assert_eq!(next(&parts, [1, 1, 1]), [Some(4), Some(5), Some(2)], "it helps out when its own are sent");
        assert_eq!(next(&parts, [2, 1, 2]), [Some(3), None, None]);
    }

    #[test]
    fn the_parts_of_an_object_are_one_lanes() {
        let parts = parts(false);
        assert_eq!(next(&parts, [1, 2, 1, 1, 1]), [Some(0), Some(1), Some(4), Some(5), None]);
        assert_eq!(next(&parts, [2, 1, 2, 2]), [Some(2), None, Some(3), None]);
    }
}
