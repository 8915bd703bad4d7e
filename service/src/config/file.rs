//! Turning the keys of a TOML file into defaults of a clap command.

use std::path::Path;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

use super::Error;

/// `command` with the file's values as defaults, and the entries of the file that are `sections`.
pub(super) fn apply(
    mut command: Command,
    path: &Path,
    table: Table,
    sections: &[&str],
) -> Result<(Command, Table), Error> {
    // Tries values out: nothing is required there, and the environment does not meddle.
    let trial = command.clone().mut_args(|arg| arg.required(false).env(None::<&str>)).no_binary_name(true);
    let mut kept = Table::new();
    for (key, value) in table {
        if sections.contains(&key.as_str()) {
            kept.insert(key, value);
            continue;
        }
        let Some((id, arg)) = option_of(&command, &key) else {
            return Err(Error::UnknownKey { hint: hint(&command, sections, &key), key, file: path.to_owned() });
        };
        let refuse = |reason: String| Error::Value { key: key.clone(), file: path.to_owned(), reason };
        let values = texts(&arg, &value).map_err(&refuse)?;
        try_out(&trial, &arg, &values).map_err(&refuse)?;
        command = command.mut_arg(id, |arg| arg.required(false).default_values(values));
    }
    Ok((command, kept))
}

/// The option a key stands for: by its long name, `_` and `-` being the same.
fn option_of(command: &Command, key: &str) -> Option<(clap::Id, Arg)> {
    let long = key.replace('_', "-");
    // `config` itself would have to be known before it is read.
    let mut options = command.get_arguments().filter(|arg| settable(arg));
    let arg = options.find(|arg| arg.get_long() == Some(long.as_str()))?;
    Some((arg.get_id().clone(), arg.clone()))
}

fn settable(arg: &Arg) -> bool {
    let settable = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append | ArgAction::SetTrue);
    settable && arg.get_long().is_some_and(|long| long != "config")
}

fn texts(arg: &Arg, value: &Value) -> Result<Vec<String>, String> {
    let many =
        matches!(arg.get_action(), ArgAction::Append) || arg.get_num_args().is_some_and(|range| range.max_values() > 1);
    let flag = matches!(arg.get_action(), ArgAction::SetTrue);
    match value {
        Value::Boolean(value) => Ok(vec![value.to_string()]),
        other if flag => Err(format!("must be true or false, without quotes, not {}", kind(other))),
        Value::Array(values) if many => values.iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(value) => Ok(value.to_string()),
        Value::Datetime(moment) => Ok(moment.to_string()),
        other => Err(format!("must be a single value, not {}", kind(other))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

/// Has clap parse the values as if they were flags: its own check of defaults would be an assertion, not an error.
fn try_out(trial: &Command, arg: &Arg, values: &[String]) -> Result<(), String> {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return Ok(());
    }
    let long = arg.get_long().unwrap_or_default();
    let args = values.iter().map(|value| format!("--{long}={value}"));
    match trial.clone().try_get_matches_from(args) {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            // Whether everything needed is there shows only when all layers are together.
            ErrorKind::MissingRequiredArgument | ErrorKind::MissingSubcommand => Ok(()),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Ok(()),
            _ => Err(first_line(&error)),
        },
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.strip_prefix("error: ").unwrap_or(paragraph);
    line.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn hint(command: &Command, sections: &[&str], key: &str) -> String {
    let options = command.get_arguments().filter(|arg| settable(arg)).filter_map(Arg::get_long);
    let known: Vec<String> =
        options.map(|long| long.replace('-', "_")).chain(sections.iter().map(|name| (*name).to_owned())).collect();
    let wanted = key.replace('-', "_");
    let nearest = known.iter().map(|name| (distance(name, &wanted), name)).min();
    match nearest {
        // Beyond a third of its letters it is another word.
        Some((edits, name)) if edits <= wanted.chars().count().div_ceil(3) => format!("did you mean {name:?}?"),
        _ => format!("known are {}", known.join(", ")),
    }
}

/// Edit distance (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
