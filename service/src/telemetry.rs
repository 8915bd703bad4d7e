//! Logging: tracing events as text or JSON lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level is not a tracing filter.
    #[error(
        "log level {level:?} is not a filter: {reason}; write error, warn, info, debug or trace, or per part: warn,causeway_service=debug"
    )]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another subscriber is already in place.
    #[error("start logging: {0}")]
    Taken(String),
}

/// Start logging for this process. `level` is a level or a filter in the `RUST_LOG` notation.
pub fn init(level: &str, format: LogFormat) -> Result<(), Error> {
    let filter = filter(level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Error::Taken(error.to_string()))
}

fn filter(level: &str) -> Result<EnvFilter, Error> {
    let bad = |reason: String| Error::Level { level: level.to_owned(), reason };
    if level.trim().is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    // A lone word is a level; EnvFilter would take an unknown one for a target's name and silently log nothing.
    if !level.contains(['=', ',']) && level.parse::<tracing::level_filters::LevelFilter>().is_err() {
        return Err(bad("no such level".to_owned()));
    }
    EnvFilter::builder().parse(level).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn levels_and_filters_are_checked() {
        for good in ["info", "DEBUG", "off", "warn,causeway_service=debug"] {
            assert!(super::filter(good).is_ok(), "{good}");
        }
        for bad in ["chatty", "", "a=b=c"] {
            let error = super::filter(bad).unwrap_err().to_string();
            assert!(error.contains("write error, warn"), "{error}");
        }
    }
}
