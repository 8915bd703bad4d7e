//! How long requests took.

use std::time::Duration;

/// How long each of many requests took.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<f64>);

impl Times {
    /// One more.
    pub fn add(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1000.0);
    }

    /// Those of another.
    pub fn merge(&mut self, others: Times) {
        self.0.extend(others.0);
    }

    /// In milliseconds: what this share of them stayed below.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (share * sorted.len() as f64) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// Median, 99th percentile and count in words.
    pub fn words(&self) -> String {
        format!("{:.1} and {:.1} ms ({} requests)", self.quantile(0.5), self.quantile(0.99), self.0.len())
    }
}
