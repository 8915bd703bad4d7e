//! In which order what follows the data is made: what is big first and side by side, nothing before what it needs.
//!
//! A dump in plain text names few dependencies, so most of the order comes from the kinds: keys, other indexes, the joining of
//! partitions' indexes, foreign keys, and then everything else as the dump has it.

use super::super::payload::Entry;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
};

/// Small entries that are run as one transaction.
const BATCH_MAX: usize = 100;

/// Entries that are looked at for one that no running one's lock is in the way of. Behind so many that all have to wait, a worker
/// waits too: thousands of foreign keys to one table would else be looked through for each of them.
const LOOK_MAX: usize = 256;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// One entry that may take long; others run beside it.
    Heavy(usize),
    /// Entries that take no time, in the dump's order; nothing runs beside them.
    Light(Vec<usize>),
}

/// How urgent a heavy entry is: smaller goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Without it the log cannot be applied.
    Key,
    Index,
    /// Reads what the indexes are for.
    Foreign,
}

/// The tables that a heavy entry locks, so that no worker waits for another's lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Locks {
    shared: Option<String>,
    exclusive: Vec<String>,
}

/// Entries that are still to be made.
pub(super) struct Queue {
    entries: Vec<Entry>,
    class: Vec<Option<Class>>,
    locks: Vec<Locks>,
    /// Places of what an entry waits for, and of those that wait for it.
    needs: Vec<HashSet<usize>>,
    needed_by: Vec<Vec<usize>>,
    /// Those that are neither done nor under way; of them the ones that take no time; and the heavy ones whose needs are met,
    /// the next one first.
    waiting: BTreeSet<usize>,
    light: BTreeSet<usize>,
    ready: BTreeSet<(Class, Reverse<u64>, usize)>,
    /// Indexes and what joins them that are not done yet.
    indexes: usize,
    running: Vec<usize>,
}

impl Queue {
    /// All of `entries` but those that are `done`.
    pub(super) fn new(entries: Vec<Entry>, done: &HashSet<u32>) -> Self {
        let places: HashMap<u32, usize> = entries.iter().enumerate().map(|(at, entry)| (entry.id, at)).collect();
        let waiting: BTreeSet<usize> =
            entries.iter().enumerate().filter(|(_, entry)| !done.contains(&entry.id)).map(|(at, _)| at).collect();
        let needs = entries.iter().enumerate().map(|(own, entry)| {
            // What is not among these is there already.
            let places = entry.needs.iter().filter_map(|id| places.get(id).copied());
            places.filter(|at| *at != own && waiting.contains(at)).collect::<HashSet<usize>>()
        });
        let needs: Vec<HashSet<usize>> = needs.collect();
        let mut needed_by = vec![vec![]; entries.len()];
        for (own, needs) in needs.iter().enumerate() {
            needs.iter().for_each(|need| needed_by[*need].push(own));
        }
        let late: HashSet<String> = entries.iter().filter_map(late_relation).collect();
        let class: Vec<_> = entries.iter().map(|entry| class(entry, &late)).collect();
        let mut queue = Self {
            locks: entries.iter().map(locks).collect(),
            light: waiting.iter().copied().filter(|at| class[*at].is_none()).collect(),
            ready: BTreeSet::new(),
            indexes: 0,
            running: vec![],
            entries,
            class,
            needs,
            needed_by,
            waiting,
        };
        queue.indexes = queue.waiting.iter().filter(|at| queue.is_index(**at)).count();
        for at in queue.waiting.clone() {
            queue.note_ready(at);
        }
        queue
    }

    pub(super) fn entry(&self, at: usize) -> &Entry {
        &self.entries[at]
    }

    /// How many are neither done nor under way.
    pub(super) fn left(&self) -> usize {
        self.waiting.len()
    }

    /// Whether all are done.
    pub(super) fn is_done(&self) -> bool {
        self.running.is_empty() && self.left() == 0
    }

    /// The next task; nothing if it has to wait for one that is under way, or if there is none.
    pub(super) fn take(&mut self) -> Option<Task> {
        // Foreign keys need every index that there is, joined to those of its partitions; they are the last among the ready.
        let indexed = self.indexes == 0;
        let open = self.ready.iter().take_while(|(class, ..)| indexed || *class != Class::Foreign);
        let best = open.take(LOOK_MAX).map(|(.., at)| *at).find(|at| self.is_free(*at));
        if let Some(best) = best {
            self.start(best);
            return Some(Task::Heavy(best));
        }
        if !self.running.is_empty() {
            return None;
        }
        self.take_light()
    }

    /// A task is done.
    pub(super) fn finished(&mut self, task: &Task) {
        let done = match task {
            Task::Heavy(at) => std::slice::from_ref(at),
            Task::Light(places) => places,
        };
        for at in done {
            self.running.retain(|running| running != at);
            self.indexes -= usize::from(self.is_index(*at));
            for other in std::mem::take(&mut self.needed_by[*at]) {
                self.needs[other].remove(at);
                self.note_ready(other);
            }
        }
    }

    /// Whether a foreign key may need it.
    fn is_index(&self, at: usize) -> bool {
        matches!(self.class[at], Some(Class::Key | Class::Index)) || self.entries[at].kind == ATTACH
    }

    /// Puts an entry among the ready, if it is.
    fn note_ready(&mut self, at: usize) {
        if let Some(class) = self.class[at]
            && self.needs[at].is_empty()
            && self.waiting.contains(&at)
        {
            self.ready.insert((class, Reverse(self.entries[at].bytes), at));
        }
    }

    fn take_light(&mut self) -> Option<Task> {
        let mut batch = vec![];
        for &at in &self.light {
            // What it needs may be earlier in the same batch.
            if batch.len() == BATCH_MAX || self.needs[at].iter().any(|need| !batch.contains(need)) {
                break;
            }
            batch.push(at);
        }
        if batch.is_empty() {
            // Entries that need each other in a circle: the dump's own order is the best guess.
            batch.extend(self.waiting.first());
        }
        for at in &batch {
            self.start(*at);
        }
        (!batch.is_empty()).then_some(Task::Light(batch))
    }

    fn start(&mut self, at: usize) {
        self.waiting.remove(&at);
        self.light.remove(&at);
        if let Some(class) = self.class[at] {
            self.ready.remove(&(class, Reverse(self.entries[at].bytes), at));
        }
        self.running.push(at);
    }

    /// Whether it needs no lock that a running one has.
    fn is_free(&self, at: usize) -> bool {
        let own = &self.locks[at];
        self.running.iter().all(|running| {
            let other = &self.locks[*running];
            let meets = |table: &String| other.exclusive.contains(table) || other.shared.as_ref() == Some(table);
            !own.exclusive.iter().any(meets)
                && !own.shared.as_ref().is_some_and(|table| other.exclusive.contains(table))
        })
    }
}

/// Joins the index of a partition to that of its parent.
const ATTACH: &str = "INDEX ATTACH";

/// A materialized view that the dump makes after the keys, because it needs one.
fn late_relation(entry: &Entry) -> Option<String> {
    (entry.kind == "MATERIALIZED VIEW").then(|| after(&words(&entry.sql), "VIEW", &[])).flatten()
}

/// Nothing for what takes no time, or stands on something that is made among what takes none.
fn class(entry: &Entry, late: &HashSet<String>) -> Option<Class> {
    match entry.kind.as_str() {
        "INDEX" if !late.is_empty() && locks(entry).shared.is_some_and(|table| late.contains(&table)) => None,
        "INDEX" | "CONSTRAINT" if is_key(&entry.sql) => Some(Class::Key),
        "INDEX" | "CONSTRAINT" => Some(Class::Index),
        "FK CONSTRAINT" | "CHECK CONSTRAINT" => Some(Class::Foreign),
        _ => None,
    }
}

fn is_key(sql: &str) -> bool {
    sql.contains(" PRIMARY KEY ") || sql.contains(" REPLICA IDENTITY USING INDEX ")
}

fn locks(entry: &Entry) -> Locks {
    let words = words(&entry.sql);
    match entry.kind.as_str() {
        "INDEX" if !is_key(&entry.sql) => Locks { shared: after(&words, "ON", &["ONLY"]), exclusive: vec![] },
        "INDEX" => Locks { shared: None, exclusive: after(&words, "ON", &["ONLY"]).into_iter().collect() },
        "CONSTRAINT" | "FK CONSTRAINT" | "CHECK CONSTRAINT" => {
            let table = after(&words, "ALTER", &["TABLE", "DOMAIN", "FOREIGN", "ONLY"]);
            Locks { shared: None, exclusive: table.into_iter().chain(after(&words, "REFERENCES", &[])).collect() }
        }
        _ => Locks::default(),
    }
}

/// The name that follows a word, and those of `rest`.
fn after(words: &[String], first: &str, rest: &[&str]) -> Option<String> {
    let at = words.iter().position(|word| word == first)?;
    let name = words[at + 1..].iter().find(|word| !rest.contains(&word.as_str()))?;
    // A list of columns follows without a space; names are quoted when they hold a parenthesis.
    let end = match name.rfind('"') {
        Some(_) => unquoted(name, '(').unwrap_or(name.len()),
        None => name.find('(').unwrap_or(name.len()),
    };
    Some(name[..end].trim_end_matches(';').to_owned())
}

/// Where a character stands outside of quotes.
fn unquoted(text: &str, wanted: char) -> Option<usize> {
    let mut quoted = false;
    text.char_indices().find_map(|(at, c)| {
        quoted ^= c == '"';
        (c == wanted && !quoted).then_some(at)
    })
}

/// The words of a statement; a quoted name is (part of) one.
pub(super) fn words(sql: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (vec![], String::new(), false);
    for c in sql.chars() {
        quoted ^= c == '"';
        if c.is_whitespace() && !quoted {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
        } else {
            word.push(c);
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u32, kind: &str, sql: &str, bytes: u64, needs: &[u32]) -> Entry {
        let (kind, sql) = (kind.to_owned(), sql.to_owned());
        Entry { id, needs: needs.to_vec(), kind, sql, bytes, ..Entry::default() }
    }

    fn index(id: u32, table: &str, bytes: u64) -> Entry {
        entry(id, "INDEX", &format!("CREATE INDEX i{id} ON {table} USING btree (a);"), bytes, &[])
    }

    fn key(id: u32, table: &str, bytes: u64) -> Entry {
        let sql = format!("ALTER TABLE ONLY {table}\n    ADD CONSTRAINT k{id} PRIMARY KEY (a);");
        entry(id, "CONSTRAINT", &sql, bytes, &[])
    }

    fn foreign(id: u32, table: &str, to: &str, needs: &[u32]) -> Entry {
        let sql = format!("ALTER TABLE ONLY {table}\n    ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES {to}(a);");
        entry(id, "FK CONSTRAINT", &sql, 0, needs)
    }

    fn heavy(task: Option<Task>, queue: &Queue) -> u32 {
        match task {
            Some(Task::Heavy(at)) => queue.entry(at).id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_go_first_and_big_before_small() {
        let entries = vec![index(1, "s.a", 500), key(2, "s.b", 10), key(3, "s.c", 20), foreign(4, "s.b", "s.c", &[3])];
        let mut queue = Queue::new(entries, &HashSet::new());
        let first = queue.take();
        assert_eq!(heavy(first.clone(), &queue), 3);
        let second = queue.take();
        assert_eq!(heavy(second.clone(), &queue), 2);
        let third = queue.take();
        assert_eq!(heavy(third.clone(), &queue), 1);
        assert_eq!(queue.take(), None, "the foreign key needs 3");
        queue.finished(&first.expect("taken"));
        assert_eq!(queue.take(), None, "its tables are locked by 2");
        queue.finished(&second.expect("taken"));
        assert_eq!(queue.take(), None, "every index comes before it");
        queue.finished(&third.expect("taken"));
        let fourth = queue.take();
        assert_eq!(heavy(fourth.clone(), &queue), 4);
        queue.finished(&fourth.expect("taken"));
        assert!(queue.is_done());
    }

    #[test]
    fn light_ones_run_alone_in_their_order_and_together() {
        let light = |id, needs: &[u32]| entry(id, "TRIGGER", "CREATE TRIGGER t;", 0, needs);
        let entries =
            vec![light(1, &[]), index(2, "s.a", 1), light(3, &[1]), light(4, &[5]), index(5, "s.v", 1), light(6, &[])];
        let mut queue = Queue::new(entries, &HashSet::from([5]));
        let first = queue.take();
        assert_eq!(heavy(first.clone(), &queue), 2);
        assert_eq!(queue.take(), None, "nothing light beside a heavy one");
        queue.finished(&first.expect("taken"));
        assert_eq!(queue.take(), Some(Task::Light(vec![0, 2, 3, 5])), "5 is there already");
    }

    #[test]
    fn a_view_that_needs_a_key_is_indexed_after_it_is_made() {
        let view = entry(1, "MATERIALIZED VIEW", "CREATE MATERIALIZED VIEW s.v AS SELECT 1;", 0, &[]);
        let on_view = entry(3, "INDEX", "CREATE INDEX i ON s.v USING btree (a);", 0, &[]);
        let mut queue = Queue::new(vec![view, key(2, "s.t", 1), on_view], &HashSet::new());
        let mut order = vec![];
        while let Some(task) = queue.take() {
            queue.finished(&task);
            order.push(task);
        }
        assert_eq!(order, [Task::Heavy(1), Task::Light(vec![0, 2])]);
        assert!(queue.is_done());
    }

    #[test]
    fn foreign_keys_wait_for_the_indexes_of_partitions() {
        let attach = entry(2, ATTACH, "ALTER INDEX p ATTACH PARTITION c;", 0, &[]);
        let entries = vec![foreign(1, "s.b", "s.p", &[]), attach, key(3, "s.p", 0)];
        let mut queue = Queue::new(entries, &HashSet::new());
        let mut order = vec![];
        while let Some(task) = queue.take() {
            queue.finished(&task);
            order.push(task);
        }
        assert_eq!(order, [Task::Heavy(2), Task::Light(vec![1]), Task::Heavy(0)]);
    }

    #[test]
    fn many_entries_take_little_time() {
        let many = 20_000;
        let mut entries: Vec<Entry> = (0..many).map(|n| key(n, &format!("s.t{n}"), u64::from(n))).collect();
        entries.extend((0..many).map(|n| index(many + n, &format!("s.t{}", n % 100), 1)));
        // All of them lock the same table.
        entries.extend((0..many).map(|n| foreign(2 * many + n, &format!("s.t{n}"), "s.hub", &[n])));
        entries.extend((0..many).map(|n| entry(3 * many + n, "COMMENT", "COMMENT ON TABLE s.t IS 'x';", 0, &[n])));
        let began = std::time::Instant::now();
        let (mut queue, mut running, mut made) = (Queue::new(entries, &HashSet::new()), vec![], 0);
        while !queue.is_done() {
            match queue.take() {
                // Four workers.
                Some(task) if running.len() < 3 => running.push(task),
                other => {
                    let task = other.unwrap_or_else(|| running.remove(0));
                    made += if let Task::Light(places) = &task { places.len() } else { 1 };
                    queue.finished(&task);
                }
            }
        }
        assert_eq!(made, 4 * many as usize);
        // With every look at every entry it would take minutes.
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(10), "{took:?}");
    }

    #[test]
    fn circles_end() {
        let a = entry(1, "RULE", "", 0, &[2]);
        let b = entry(2, "RULE", "", 0, &[1]);
        let mut queue = Queue::new(vec![a, b], &HashSet::new());
        while let Some(task) = queue.take() {
            queue.finished(&task);
        }
        assert!(queue.is_done());
    }

    #[test]
    fn tables_are_found_in_quoted_names() {
        let sql = "SET default_tablespace = '';\nCREATE UNIQUE INDEX \"my ON index\" ON ONLY \"s x\".\"t \"\"ON\"\" y\" USING btree (a);";
        let found = locks(&entry(1, "INDEX", sql, 0, &[]));
        assert_eq!(found.shared.as_deref(), Some("\"s x\".\"t \"\"ON\"\" y\""));
        let found = locks(&foreign(1, "s.\"a b\"", "s.\"c d\"", &[]));
        assert_eq!(found.exclusive, ["s.\"a b\"", "s.\"c d\""]);
    }
}
