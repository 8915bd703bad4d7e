//! The results as they are kept over runs, and as a table for people.

use super::{
    Cell, Drill, Engine, Fault, Outcome, Victim,
    matrix::{all, not_applicable, points},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, io,
    path::Path,
};

/// The last result of each cell, by the options that run it again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Results {
    cells: BTreeMap<String, Kept>,
}

/// A result.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    /// What is wrong; nothing if it is green.
    wrong: Option<String>,
    seconds: u64,
    date: String,
    commit: String,
}

impl Results {
    /// Those of a file, if it is there.
    pub fn load(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes them to a file.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::from)?;
        fs::write(path, text + "\n")
    }

    /// A new result takes the place of the one before.
    pub fn add(&mut self, outcome: &Outcome, date: &str, commit: &str) {
        let kept = Kept {
            wrong: outcome.wrong.clone(),
            seconds: outcome.took.as_secs(),
            date: date.to_owned(),
            commit: commit.to_owned(),
        };
        self.cells.insert(outcome.cell.options(), kept);
    }

    /// Whether a cell's last result is green.
    pub fn is_green(&self, cell: &Cell) -> bool {
        self.cells.get(&cell.options()).is_some_and(|kept| kept.wrong.is_none())
    }

    /// How many cells are green, red, and not run.
    pub fn counts(&self) -> (usize, usize, usize) {
        let cells = all();
        let results: Vec<_> = cells.iter().filter_map(|cell| self.cells.get(&cell.options())).collect();
        let red = results.iter().filter(|kept| kept.wrong.is_some()).count();
        (results.len() - red, red, cells.len() - results.len())
    }

    /// The tables in Markdown.
    pub fn markdown(&self) -> String {
        let (green, red, not_run) = self.counts();
        let of = |what: fn(&Kept) -> &String| {
            let all: BTreeSet<&str> = self.cells.values().map(|kept| what(kept).as_str()).collect();
            all.into_iter().collect::<Vec<_>>().join(", ")
        };
        let seconds: u64 = self.cells.values().map(|kept| kept.seconds).sum();
        let mut text = format!(
            "{green} cells green, {red} red, {not_run} not run yet; {seconds} s all together. Dates: {}. Commits: {}.\n",
            of(|kept| &kept.date),
            of(|kept| &kept.commit)
        );
        text.push_str("A column has three entries: kill, stop, elsewhere, each with the seconds of a green cell; `·` is not run yet.\n");
        let _ = writeln!(text, "`–` is not applicable:\n\n{}", legend().trim_end());
        for engine in Engine::ALL {
            let _ = writeln!(text, "\n### {}\n", engine.name());
            self.hurt(engine, &mut text);
            let _ = writeln!(text, "\n| drill | |\n|---|---|");
            for drill in Drill::ALL {
                let shown = match drill.is_for(engine) {
                    true => self.shown(&Cell::Drill { engine, drill }),
                    false => "–".to_owned(),
                };
                let _ = writeln!(text, "| `{}` | {shown} |", drill.name());
            }
        }
        self.reds(&mut text);
        text
    }

    fn hurt(&self, engine: Engine, text: &mut String) {
        let names = Victim::ALL.map(Victim::name).join(" | ");
        let _ = writeln!(text, "| waiting at | {names} |\n|---{}|", "|---".repeat(Victim::ALL.len()));
        for point in points() {
            let of = |victim, fault| match not_applicable(engine, victim, fault) {
                Some(_) => "–".to_owned(),
                None => self.shown(&Cell::Hurt { engine, point, victim, fault }),
            };
            let row = Victim::ALL.map(|victim| Fault::ALL.map(|fault| of(victim, fault)).join(" "));
            let _ = writeln!(text, "| `{}` | {} |", point.name, row.join(" | "));
        }
    }

    fn shown(&self, cell: &Cell) -> String {
        match self.cells.get(&cell.options()) {
            None => "·".to_owned(),
            Some(Kept { wrong: None, seconds, .. }) => seconds.to_string(),
            Some(_) => "**red**".to_owned(),
        }
    }

    fn reds(&self, text: &mut String) {
        let cells = all();
        let of = |cell: &Cell| Some((cell.options(), self.cells.get(&cell.options())?.wrong.clone()?));
        let reds: Vec<_> = cells.iter().filter_map(of).collect();
        if !reds.is_empty() {
            let _ = writeln!(text, "\n### Red\n");
        }
        for (options, wrong) in reds {
            let line: String = wrong.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
            let _ = writeln!(text, "- `make faults FAULTS_ARGS='{options}'`: {line}");
        }
    }
}

/// Why combinations are none.
fn legend() -> String {
    let mut reasons: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (engine, victim) in Engine::ALL.into_iter().flat_map(|engine| Victim::ALL.map(|victim| (engine, victim))) {
        for fault in Fault::ALL {
            if let Some(reason) = not_applicable(engine, victim, fault) {
                reasons.entry(reason).or_default().insert(format!("{} {victim} {}", engine.name(), fault.name()));
            }
        }
    }
    let line = |(reason, of): (&str, BTreeSet<String>)| {
        format!("- {}: {reason}.\n", of.into_iter().collect::<Vec<_>>().join(", "))
    };
    reasons.into_iter().map(line).collect()
}
