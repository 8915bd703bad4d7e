//! A fuzzer for decoders of foreign bytes, on stable Rust: well-formed samples are damaged in ways that decoders stumble over, for
//! as long as one wants. What makes a target panic, or take far too long, is written to a file and shown with how to run it again.
//!
//! - `CAUSEWAY_FUZZ_SECONDS`: how long each target runs; a third of a second if it is not set.
//! - `CAUSEWAY_FUZZ_SEED`: where randomness begins; each run of more than a second begins elsewhere if it is not set.
//! - `CAUSEWAY_FUZZ_INPUT`: a file with one input that every target gets instead.

mod mutate;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    time::{Duration, Instant},
};

pub use mutate::mutate;

/// What `make test` can spare for a target.
const SHORT: Duration = Duration::from_millis(300);

/// No decoder of the few hundred kilobytes that there are here needs this long, also on a busy machine; one that does loops.
const SLOW: Duration = Duration::from_secs(5);

/// Inputs kept because a target took them: they lead further in than the samples alone.
const CORPUS_MAX: usize = 256;

/// Runs a target until its time is over. `samples` are well-formed inputs. A target answers whether it took the input; it has to
/// come back, whatever it is given.
#[track_caller]
pub fn fuzz(name: &str, samples: &[Vec<u8>], target: impl Fn(&[u8]) -> bool) {
    assert!(!samples.is_empty(), "a target without a sample is not fuzzed");
    if let Some(path) = env::var_os("CAUSEWAY_FUZZ_INPUT") {
        let input = fs::read(&path).expect("read the input");
        target(&input);
        return;
    }
    for sample in samples {
        assert!(try_one(name, sample, &target), "{name}: a sample is refused, so it leads nowhere: {sample:02x?}");
    }
    let time = seconds().unwrap_or(SHORT);
    let seed = seed(time);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut corpus = samples.to_vec();
    let (begun, mut runs, mut taken) = (Instant::now(), 0u64, 0u64);
    while begun.elapsed() < time {
        // The clock costs more than most decoders.
        for _ in 0..64 {
            let input = mutate(&corpus, &mut rng);
            runs += 1;
            if try_one(name, &input, &target) {
                taken += 1;
                keep(&mut corpus, samples.len(), input, &mut rng);
            }
        }
    }
    println!("fuzz {name}: {runs} inputs, {taken} taken, in {:.1} s, seed {seed}", begun.elapsed().as_secs_f64());
}

fn keep(corpus: &mut Vec<Vec<u8>>, samples: usize, input: Vec<u8>, rng: &mut StdRng) {
    // A corpus of ever longer inputs would slow everything down.
    if input.len() > 4 * corpus.iter().take(samples).map(Vec::len).max().unwrap_or(0) + 64 {
        return;
    }
    if corpus.len() < samples + CORPUS_MAX {
        corpus.push(input);
    } else {
        let at = rng.random_range(samples..corpus.len());
        corpus[at] = input;
    }
}

fn try_one(name: &str, input: &[u8], target: &impl Fn(&[u8]) -> bool) -> bool {
    let begun = Instant::now();
    match catch_unwind(AssertUnwindSafe(|| target(input))) {
        Ok(taken) => {
            let took = begun.elapsed();
            assert!(took < SLOW, "{name}: an input takes {took:?}: {}", save(name, input));
            taken
        }
        Err(panic) => {
            eprintln!("{name}: an input makes it panic: {}", save(name, input));
            resume_unwind(panic)
        }
    }
}

/// Writes an input to a file; what to say about it.
fn save(name: &str, input: &[u8]) -> String {
    let path: PathBuf =
        env::temp_dir().join(format!("causeway-fuzz-{}-{}", name.replace(' ', "-"), std::process::id()));
    let shown: Vec<u8> = input.iter().copied().take(200).collect();
    match fs::write(&path, input) {
        Ok(()) => format!("CAUSEWAY_FUZZ_INPUT={} runs it again; it begins with {shown:02x?}", path.display()),
        Err(error) => format!("{shown:02x?} ... ({error})"),
    }
}

fn seconds() -> Option<Duration> {
    let text = env::var("CAUSEWAY_FUZZ_SECONDS").ok()?;
    let seconds: f64 = text.parse().expect("CAUSEWAY_FUZZ_SECONDS is a number of seconds");
    Some(Duration::from_secs_f64(seconds))
}

fn seed(time: Duration) -> u64 {
    match env::var("CAUSEWAY_FUZZ_SEED") {
        Ok(text) => text.parse().expect("CAUSEWAY_FUZZ_SEED is a number"),
        // Short runs are tests: they do the same each time.
        Err(_) if time <= Duration::from_secs(1) => 1,
        Err(_) => rand::random(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A decoder that trusts a length, believes a count, and is not read to its end but by what is nearly right.
    fn careless(input: &[u8]) -> bool {
        if input.len() < 6 || !input.starts_with(b"ab") {
            return false;
        }
        let len = usize::from(u16::from_be_bytes([input[2], input[3]]));
        drop(input[4..4 + len].to_vec());
        true
    }

    #[test]
    fn a_length_that_is_believed_is_found() {
        let found = catch_unwind(|| fuzz("careless", &[b"ab\0\x02xy".to_vec()], careless));
        assert!(found.is_err(), "a decoder that panics on a wrong length is not found");
    }

    #[test]
    fn a_careful_decoder_passes() {
        let careful = |input: &[u8]| input.first_chunk::<4>().is_some_and(|head| head.starts_with(b"ab"));
        fuzz("careful", &[b"abcd".to_vec()], careful);
    }

    #[test]
    #[should_panic(expected = "a sample is refused")]
    fn a_sample_that_is_refused_says_so() {
        fuzz("refusing", &[b"x".to_vec()], |_| false);
    }
}
