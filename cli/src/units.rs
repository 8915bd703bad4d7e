//! Sizes, durations and counts as people write and read them.

use std::time::Duration;

/// Bytes for each unit of a size, longest name first so that `MiB` is not taken for `B`.
const SIZES: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Microseconds for each unit of a duration, longest name first.
const TIMES: [(&str, u64); 6] =
    [("ms", 1_000), ("us", 1), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// Reads a size such as `10GiB`, `1.5 GB` or `4096`, in bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let remedy = || format!("{text:?} is not a size; write a number and a unit, such as 512MiB, 10GiB or 20GB");
    let text = text.trim();
    if let Ok(bytes) = text.parse() {
        return Ok(bytes);
    }
    let lower = text.to_ascii_lowercase();
    let unit = SIZES.iter().find(|(name, _)| lower.ends_with(&name.to_ascii_lowercase()));
    let (name, bytes) = unit.ok_or_else(remedy)?;
    let number = text[..text.len() - name.len()].trim_end();
    scale(number, *bytes).ok_or_else(remedy)
}

/// Reads a duration such as `2s`, `300ms`, `24h` or `1h30m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let remedy =
        || format!("{text:?} is not a duration; write numbers with units, such as 300ms, 2s, 90m, 24h or 1h30m");
    let mut rest = text.trim();
    let mut total_us = 0u64;
    if rest.is_empty() {
        return Err(remedy());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(remedy)?;
        let (number, after) = rest.split_at(digits);
        let word = after.trim_start();
        let end = word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        let (_, us) = TIMES.iter().find(|(unit, _)| *unit == name).ok_or_else(remedy)?;
        total_us = scale(number, *us).and_then(|us| total_us.checked_add(us)).ok_or_else(remedy)?;
        rest = after.trim_start();
    }
    Ok(Duration::from_micros(total_us))
}

/// `number`, which may have a fraction, times `unit`; `None` if it is no number or too large.
fn scale(number: &str, unit: u64) -> Option<u64> {
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    let scaled = (number.parse::<f64>().ok()? * unit as f64).round();
    (scaled < u64::MAX as f64).then_some(scaled as u64)
}

/// A size such as `29.4 MiB`.
pub fn bytes(bytes: u64) -> String {
    let unit = SIZES[..4].iter().rev().find(|(_, size)| bytes >= *size);
    match unit {
        None => format!("{bytes} B"),
        Some((name, size)) => format!("{} {name}", digits(bytes as f64 / *size as f64)),
    }
}

/// A number with three digits that matter: `1.23`, `12.3`, `123`.
fn digits(number: f64) -> String {
    match number {
        n if n < 9.995 => format!("{n:.2}"),
        n if n < 99.95 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

/// A rate such as `120 MiB/s`.
pub fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", bytes(bytes_per_second))
}

/// A number with its thousands apart: `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration with its two largest units: `23 h 59 min`, `1 min 5 s`, `1.2 s`, `340 ms`.
pub fn duration(duration: Duration) -> String {
    let (ms, s) = (duration.as_millis(), duration.as_secs());
    match s {
        0 => format!("{ms} ms"),
        1..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{s} s"),
        60..3_600 => two(s / 60, "min", s % 60, "s"),
        3_600..86_400 => two(s / 3_600, "h", s % 3_600 / 60, "min"),
        _ => two(s / 86_400, "d", s % 86_400 / 3_600, "h"),
    }
}

/// A duration of whole seconds: as [`duration`], but `5 s` rather than `5.0 s`.
pub fn seconds(seconds: u64) -> String {
    if seconds < 10 { format!("{seconds} s") } else { duration(Duration::from_secs(seconds)) }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    }
}

/// Milliseconds as [`duration`] shows them.
pub fn ms(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_both_systems() {
        for (text, wanted) in [
            ("4096", 4096),
            ("10GiB", 10 << 30),
            ("1.5 GiB", 3 << 29),
            ("20GB", 20_000_000_000),
            ("512mib", 512 << 20),
            ("7 kB", 7000),
            ("3B", 3),
        ] {
            assert_eq!(parse_bytes(text), Ok(wanted), "{text}");
        }
        for bad in ["", "GiB", "-1GiB", "10 G", "1e9", "99999999999TiB", "1.2.3MB", "ten", "é"] {
            assert!(parse_bytes(bad).is_err_and(|e| e.contains("10GiB")), "{bad}");
        }
    }

    #[test]
    fn durations_are_read_with_units_only() {
        for (text, wanted) in [
            ("2s", 2_000),
            ("300ms", 300),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("2 d", 172_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(wanted)), "{text}");
        }
        for bad in ["", "2", "s", "-2s", "2 fortnights", "1h30", "9999999999999d", "2ſ"] {
            assert!(parse_duration(bad).is_err_and(|e| e.contains("300ms")), "{bad}");
        }
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(
            [0, 999, 1024, 30_828_134, 10 << 40].map(bytes),
            ["0 B", "999 B", "1.00 KiB", "29.4 MiB", "10.0 TiB"]
        );
        assert_eq!([0, 999, 1_000, 12_345_678].map(count), ["0", "999", "1,000", "12,345,678"]);
        assert_eq!([0, 5, 59, 61].map(seconds), ["0 s", "5 s", "59 s", "1 min 1 s"]);
        let shown = [0, 340, 1_200, 42_000, 65_000, 7_200_000, 86_340_000, 90_000_000].map(ms);
        assert_eq!(shown, ["0 ms", "340 ms", "1.2 s", "42 s", "1 min 5 s", "2 h", "23 h 59 min", "1 d 1 h"]);
    }
}
