//! What the demo says: a line for each thing done, and what is being done now.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use service::Env;

use crate::{
    render::{Look, Output},
    units,
    view::Operation,
    watch::Sink,
};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);
const SPINNER: &str = "  {spinner:.cyan} {prefix:14} {wide_msg}";
const BAR: &str = "  {spinner:.cyan} {prefix:14} {bar:28.cyan/dim} {wide_msg}";

/// The teller.
pub(super) struct Story {
    output: Output,
    env: Env,
    began: Duration,
    now: Option<ProgressBar>,
    doing: &'static str,
}

impl Story {
    pub(super) fn new(output: Output, env: &Env) -> Self {
        Self { output, env: env.clone(), began: env.monotonic(), now: None, doing: "" }
    }

    /// A heading, with space around it.
    pub(super) fn title(&self, text: &str) {
        self.output.print(&format!("\n  {}\n", self.output.paint(Look::Strong, text)));
    }

    /// Something begins; on a terminal it is shown until it is done.
    pub(super) fn begin(&mut self, doing: &'static str, text: impl Into<String>) {
        self.abandon();
        self.doing = doing;
        if !(io::stdout().is_terminal() && io::stderr().is_terminal()) {
            return;
        }
        let bar = ProgressBar::new(1);
        bar.set_prefix(doing);
        style(&bar, SPINNER);
        bar.set_message(text.into());
        bar.enable_steady_tick(TICK);
        self.now = Some(bar);
    }

    /// What was begun is done.
    pub(super) fn done(&mut self, text: impl AsRef<str>) {
        self.abandon();
        let sign = self.output.paint(Look::Good, "✓");
        self.output.print(&format!("  {sign} {:14} {}", self.doing, text.as_ref()));
    }

    /// What is being done goes from the screen.
    pub(super) fn abandon(&mut self) {
        if let Some(bar) = self.now.take() {
            bar.finish_and_clear();
        }
    }

    /// A figure, under the last title.
    pub(super) fn figure(&self, name: &str, figure: &str, look: Option<Look>, comment: &str) {
        let padded = format!("{figure:>10}");
        let shown = look.map_or_else(|| padded.clone(), |look| self.output.paint(look, &padded));
        let comment = self.output.paint(Look::Faint, comment);
        self.output.print(format!("    {name:<24} {shown}   {comment}").trim_end());
    }

    /// A line, under the last title.
    pub(super) fn line(&self, text: &str) {
        self.output.print(&format!("    {text}"));
    }

    /// The last line.
    pub(super) fn end(&self, good: bool, text: &str) {
        let took = units::duration(self.env.monotonic().saturating_sub(self.began));
        let (look, sign) = if good { (Look::Good, "✓") } else { (Look::Bad, "✗") };
        let text = self.output.paint(look, format!("{sign} {text}"));
        self.output.print(&format!("\n  {text} {}\n", self.output.paint(Look::Faint, format!("({took} in all)"))));
    }

    /// A remark beside the story.
    pub(super) fn aside(&self, text: &str) {
        self.output.print(&format!("  {}", self.output.paint(Look::Faint, text)));
    }

    /// `text` as a name or figure to be seen.
    pub(super) fn accent(&self, text: &str) -> String {
        self.output.paint(Look::Accent, text)
    }
}

impl Sink for Story {
    fn update(&mut self, operation: &Operation) {
        let Some(bar) = &self.now else { return };
        let words = crate::render::line(operation);
        match operation.progress.as_ref().filter(|p| operation.state == "seeding" && p.seed_bytes_total > 0) {
            Some(progress) => {
                style(bar, BAR);
                bar.set_length(progress.seed_bytes_total);
                bar.set_position(progress.seed_bytes_done.min(progress.seed_bytes_total));
                let words = words.split(" · ").skip(2).collect::<Vec<_>>().join(" · ");
                bar.set_message(words);
            }
            None => {
                style(bar, SPINNER);
                bar.set_message(words);
            }
        }
    }

    fn trouble(&mut self, text: &str) {
        match &self.now {
            Some(bar) => bar.println(format!("    {text}")),
            None => self.line(text),
        }
    }

    fn close(&mut self) {}
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
    }
}
