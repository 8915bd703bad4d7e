//! Putting answers on the screen: tables for people, JSON and YAML for scripts, colour only on a terminal.

mod explanation;
mod operation;
mod table;

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;

use crate::{
    args::Format,
    exit::Exit,
    failure::Failure,
    view::{DatabaseFindings, Finding},
};

pub use explanation::explanation;
pub use operation::{details, line, next_step};
pub use table::{databases, instances, operations};

/// Where and how a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// The form of answers.
    pub format: Format,
    colour: bool,
    colour_errors: bool,
}

/// The looks of text on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A heading.
    Strong,
    /// Of less interest.
    Faint,
    /// As it should be.
    Good,
    /// To be looked at.
    Warn,
    /// Wrong.
    Bad,
    /// A name or figure to be seen.
    Accent,
}

impl Look {
    fn style(self) -> Style {
        match self {
            Self::Strong => Style::new().bold(),
            Self::Faint => Style::new().dimmed(),
            Self::Good => AnsiColor::Green.on_default().bold(),
            Self::Warn => AnsiColor::Yellow.on_default().bold(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Accent => AnsiColor::Cyan.on_default(),
        }
    }
}

impl Output {
    /// Standard output and standard error, in colour where they are terminals and `NO_COLOR` is not set.
    pub fn new(format: Format) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let colour = wanted && io::stdout().is_terminal();
        Self { format, colour, colour_errors: wanted && io::stderr().is_terminal() }
    }

    /// Without colour, for tests.
    pub fn plain(format: Format) -> Self {
        Self { format, colour: false, colour_errors: false }
    }

    /// `text` with this look, if standard output shows colours.
    pub fn paint(&self, look: Look, text: impl Display) -> String {
        paint(self.colour, look, text)
    }

    /// `text` with this look, if standard error shows colours.
    pub fn paint_error(&self, look: Look, text: impl Display) -> String {
        paint(self.colour_errors, look, text)
    }

    /// Prints an answer: `value` to scripts, `text` to people.
    pub fn answer(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        match self.format {
            Format::Table => self.print(&text()),
            Format::Json | Format::Yaml => self.print(&structured(self.format, value)),
        }
    }

    /// Prints one of many answers that come one after the other; nothing for people.
    pub fn event(&self, value: &impl Serialize) {
        match self.format {
            Format::Table => {}
            // Values of this crate are plain structs, which always can be written.
            Format::Json => self.print(&serde_json::to_string(value).unwrap_or_default()),
            Format::Yaml => self.print(&format!("---\n{}", structured(Format::Yaml, value))),
        }
    }

    /// Prints a line on standard output.
    pub fn print(&self, text: &str) {
        // A reader that went away, such as `head`, is no reason to fail.
        let _ = writeln!(io::stdout().lock(), "{}", text.trim_end_matches('\n'));
    }

    /// Prints a line on standard error, for people only.
    pub fn note(&self, text: &str) {
        if self.format == Format::Table {
            let _ = writeln!(io::stderr().lock(), "{}", text.trim_end_matches('\n'));
        }
    }

    /// Prints why a command failed, on standard error.
    pub fn failure(&self, failure: &Failure) {
        let text = match self.format {
            Format::Table => {
                let mut text = String::new();
                if !failure.findings.is_empty() {
                    text.push_str(&findings(&failure.findings, |look, text| self.paint_error(look, text)));
                    text.push('\n');
                }
                let word = if failure.exit == Exit::Interrupted { "stopped" } else { "error" };
                format!("{text}{} {failure}", self.paint_error(Look::Bad, format!("{word}:")))
            }
            form => structured(form, &ErrorDocument { error: failure, exit_code: failure.exit as u8 }),
        };
        let _ = writeln!(io::stderr().lock(), "{}", text.trim_end_matches('\n'));
    }
}

#[derive(Serialize)]
struct ErrorDocument<'a> {
    error: &'a Failure,
    exit_code: u8,
}

fn paint(on: bool, look: Look, text: impl Display) -> String {
    match on {
        false => text.to_string(),
        true => {
            let style = look.style();
            format!("{style}{text}{style:#}")
        }
    }
}

/// `value` as JSON or YAML.
pub fn structured(format: Format, value: &impl Serialize) -> String {
    match format {
        Format::Yaml => serde_norway::to_string(value).unwrap_or_default(),
        Format::Json | Format::Table => serde_json::to_string_pretty(value).unwrap_or_default(),
    }
}

/// What a preflight found, one block a database, errors first.
pub fn findings(all: &[DatabaseFindings], paint: impl Fn(Look, String) -> String) -> String {
    let mut text = String::new();
    for DatabaseFindings { database, findings } in all {
        text.push_str(&format!("{}\n", paint(Look::Strong, database.clone())));
        if findings.is_empty() {
            text.push_str(&format!("  {} nothing stands in the way\n", paint(Look::Good, "✓".into())));
        }
        let mut sorted: Vec<&Finding> = findings.iter().collect();
        sorted.sort_by_key(|finding| !finding.is_error());
        for finding in sorted {
            let (look, sign) = if finding.is_error() { (Look::Bad, "✗") } else { (Look::Warn, "!") };
            let Finding { severity, side, code, message, remedy } = finding;
            text.push_str(&format!(
                "  {} {}\n",
                paint(look, format!("{sign} {severity}")),
                paint(Look::Strong, code.clone())
            ));
            text.push_str(&format!("    {side}: {message}\n"));
            if !remedy.is_empty() {
                text.push_str(&format!("    {} {remedy}\n", paint(Look::Faint, "remedy:".into())));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
