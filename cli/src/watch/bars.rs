//! Progress on a terminal: a bar for each operation.

use std::{collections::BTreeMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Sink;
use crate::{
    render::{Look, Output, line},
    view::Operation,
};

/// A bar for each operation, on standard error.
pub struct Bars {
    output: Output,
    multi: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
}

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);
const SEEDING: &str = "{prefix} {bar:24.cyan/dim} {wide_msg}";
const RUNNING: &str = "{prefix} {spinner:.cyan} {wide_msg}";
const RESTING: &str = "{prefix} {wide_msg}";

impl Bars {
    /// No bars yet.
    pub fn new(output: Output) -> Self {
        Self { output, multi: MultiProgress::new(), bars: BTreeMap::new() }
    }
}

impl Sink for Bars {
    fn update(&mut self, operation: &Operation) {
        let bar = self.bars.entry(operation.id.clone()).or_insert_with(|| {
            let bar = self.multi.add(ProgressBar::new(1));
            bar.set_prefix(format!("{:<16}", operation.database));
            bar
        });
        show(bar, operation, &self.output);
    }

    fn trouble(&mut self, text: &str) {
        // Where nothing can be drawn, nothing is lost.
        let _ = self.multi.println(text);
    }

    fn close(&mut self) {
        self.bars.values().for_each(ProgressBar::abandon);
    }
}

/// Draws `operation` on `bar`.
pub(crate) fn show(bar: &ProgressBar, operation: &Operation, output: &Output) {
    let words = line(operation);
    let painted = |look, sign: &str| format!("{} {words}", output.paint_error(look, sign));
    let (template, message) = match operation.state.as_str() {
        "seeding" => (SEEDING, words),
        "succeeded" => (RESTING, painted(Look::Good, "✓")),
        "ready_for_completion" => (RESTING, painted(Look::Good, "●")),
        "failed" => (RESTING, painted(Look::Bad, "✗")),
        "cancelled" => (RESTING, painted(Look::Warn, "✗")),
        _ => (RUNNING, words),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
    }
    match template {
        RUNNING => bar.enable_steady_tick(TICK),
        _ => bar.disable_steady_tick(),
    }
    if let Some(progress) = operation.progress.as_ref().filter(|progress| progress.seed_bytes_total > 0) {
        bar.set_length(progress.seed_bytes_total);
        bar.set_position(progress.seed_bytes_done.min(progress.seed_bytes_total));
    }
    bar.set_message(message);
    bar.tick();
}
