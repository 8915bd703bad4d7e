//! Progress where there is no terminal: a line when something changes, and now and then in between.

use std::{
    collections::BTreeMap,
    io::Write,
    time::{Duration, Instant},
};

use super::Sink;
use crate::{render::line, view::Operation};

/// Progress within a state is told this often: a log is read later, and should stay short.
const EVERY: Duration = Duration::from_secs(5);

/// Plain lines, on standard error.
#[derive(Debug, Default)]
pub struct Lines {
    told: BTreeMap<String, Told>,
}

#[derive(Debug)]
struct Told {
    /// What is worth a line as soon as it changes.
    key: String,
    line: String,
    at: Instant,
}

impl Lines {
    /// Nothing told yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The line to print about an operation now, if any.
    fn due(&mut self, operation: &Operation, now: Instant) -> Option<String> {
        let Operation { id, kind, database, source, destination, state, step, waiting_for, .. } = operation;
        let reason = operation.reason.as_ref().map_or("", |reason| reason.code.as_str());
        let key = format!("{state}|{step}|{waiting_for:?}|{reason}");
        let text = format!("{kind} {database} {source} -> {destination}: {}", line(operation));
        match self.told.get(id) {
            Some(told) if told.key == key && (told.line == text || now.duration_since(told.at) < EVERY) => None,
            _ => {
                self.told.insert(id.clone(), Told { key, line: text.clone(), at: now });
                Some(text)
            }
        }
    }
}

impl Sink for Lines {
    fn update(&mut self, operation: &Operation) {
        if let Some(text) = self.due(operation, Instant::now()) {
            self.trouble(&text);
        }
    }

    fn trouble(&mut self, text: &str) {
        // Nobody reads it any more: no reason to stop watching.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    fn close(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::operation;

    #[test]
    fn a_change_is_told_at_once_and_progress_now_and_then() {
        let mut lines = Lines::new();
        let start = Instant::now();
        let mut shop = operation();
        let first = lines.due(&shop, start).unwrap();
        assert!(first.starts_with("move shop west -> east: In progress · seeding 44 %"), "{first}");
        if let Some(progress) = &mut shop.progress {
            progress.seed_bytes_done += 1 << 20;
        }
        assert_eq!(lines.due(&shop, start + EVERY / 2), None);
        assert!(lines.due(&shop, start + EVERY * 2).is_some_and(|line| line != first));
        assert_eq!(lines.due(&shop, start + EVERY * 9), None, "the same line is not told twice");
        shop.waiting_for = vec!["destination agent east".to_owned()];
        assert!(
            lines.due(&shop, start + EVERY * 9).is_some_and(|line| line.ends_with("waits for destination agent east"))
        );
    }
}
