//! An explanation as people read it.

use jiff::Timestamp;

use super::{Look, Output, operation::short};
use crate::{units, view::Explanation};

/// Columns of a paragraph: what a terminal shows without breaking lines itself.
const WIDTH: usize = 96;

/// What is going on, who is waited for, who may write, and what can be done.
pub fn explanation(output: &Output, told: &Explanation, now: Timestamp) -> String {
    let Some(operation) = &told.operation else { return String::new() };
    let mut text = String::new();
    let what =
        format!("{} of {} from {} to {}", operation.kind, operation.database, operation.source, operation.destination);
    let since =
        told.since.map(|since| format!(" since {} ({} ago)", short(since), ago(now, since))).unwrap_or_default();
    text.push_str(&format!("{}: {}{since}\n", output.paint(Look::Strong, what), operation.status));
    paragraph(&mut text, "", &told.summary);
    paragraph(&mut text, "", &told.clients);
    if operation.ended.is_some() || told.choices.is_empty() {
        return text;
    }
    text.push_str(&format!("\n{}\n", output.paint(Look::Strong, "Both agents")));
    paragraph(&mut text, "  ", &format!("source agent of {}: {}", operation.source, told.source_agent));
    paragraph(&mut text, "  ", &format!("destination agent of {}: {}", operation.destination, told.dest_agent));
    if !told.waits.is_empty() {
        text.push_str(&format!("\n{}\n", output.paint(Look::Warn, "It waits for")));
        for wait in &told.waits {
            let since = wait.since.map(|since| format!(" (since {}, {} ago)", short(since), ago(now, since)));
            paragraph(&mut text, "  ", &format!("{}{}", wait.whom, since.unwrap_or_default()));
        }
    }
    text.push_str(&format!("\n{}\n", output.paint(Look::Strong, "What you can do")));
    for choice in &told.choices {
        if !choice.command.is_empty() {
            let mark =
                if choice.is_override { output.paint(Look::Bad, "  (override, asks twice)") } else { String::new() };
            text.push_str(&format!("  {}{mark}\n", output.paint(Look::Accent, &choice.command)));
        }
        paragraph(&mut text, if choice.command.is_empty() { "  " } else { "      " }, &choice.effect);
    }
    text
}

/// How long ago, in its largest unit or two.
fn ago(now: Timestamp, then: Timestamp) -> String {
    let seconds = u64::try_from(now.as_second() - then.as_second()).unwrap_or(0);
    units::seconds(seconds)
}

/// Breaks a text into lines, indented.
fn paragraph(text: &mut String, indent: &str, words: &str) {
    let mut line = indent.to_owned();
    for word in words.split_whitespace() {
        if line.len() > indent.len() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = indent.to_owned();
        }
        if line.len() > indent.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if line.len() > indent.len() {
        text.push_str(&line);
        text.push('\n');
    }
}
