//! The table at the end.

/// A figure with its peer and its bar.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The figure.
    pub figure: String,
    /// What it is compared with; empty if nothing.
    pub peer: String,
    /// The figure divided by the peer's; empty if there is none.
    pub ratio: String,
    /// The bar in words and whether it holds; nothing if it is only told.
    pub bar: Option<(String, bool)>,
}

impl Row {
    /// A figure by itself.
    pub fn of(what: impl Into<String>, figure: impl Into<String>) -> Self {
        Self { what: what.into(), figure: figure.into(), peer: String::new(), ratio: String::new(), bar: None }
    }

    /// Beside a peer.
    pub fn against(mut self, peer: impl Into<String>, ratio: f64) -> Self {
        self.peer = peer.into();
        self.ratio = format!("{ratio:.2}");
        self
    }

    /// With a bar.
    pub fn bar(mut self, words: impl Into<String>, holds: bool) -> Self {
        self.bar = Some((words.into(), holds));
        self
    }

    /// Whether its bar holds, if it has one.
    pub fn holds(&self) -> bool {
        self.bar.as_ref().is_none_or(|(_, holds)| *holds)
    }

    fn cells(&self) -> [String; 5] {
        let bar =
            self.bar.as_ref().map(|(words, holds)| format!("{words}: {}", if *holds { "holds" } else { "MISSED" }));
        [self.what.clone(), self.figure.clone(), self.peer.clone(), self.ratio.clone(), bar.unwrap_or_default()]
    }
}

/// Prints rows as a Markdown table, so that they can go into a document as they are.
pub fn print(rows: &[Row]) {
    let head = ["measured", "Causeway", "peer", "ratio", "bar"].map(str::to_owned);
    let mut lines = vec![head];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..5).map(width).collect();
    for (n, line) in lines.iter().enumerate() {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}", width = *width)).collect();
        println!("| {} |", cells.join(" | "));
        if n == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            println!("| {} |", rules.join(" | "));
        }
    }
}
