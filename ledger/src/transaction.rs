//! What transaction (writer, seq) contains: derived from the two numbers alone, so that a checker can recompute it.

use sha2::{Digest, Sha256};

/// Accounts between which money is moved; their balances always sum to 0.
pub const ACCOUNTS: i64 = 1000;
/// Append-only lists; few, so that writers meet in them and their order across writers shows.
pub const LISTS: i64 = 64;

/// The content of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Who writes it.
    pub writer: u32,
    /// Its number in the writer's own count, from 1 without holes.
    pub seq: u64,
    /// The account that pays.
    pub src: i64,
    /// The account that is paid; never `src`.
    pub dst: i64,
    /// How much, 1 to 256.
    pub amount: i64,
    /// The list it appends itself to.
    pub list: i64,
    /// Bytes of the wanted length.
    pub note: Vec<u8>,
}

/// A writer's running hash over all its transactions: equal only for the same transactions in the same order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// The last transaction it covers; 0 for none.
    pub seq: u64,
    /// The hash; empty for none.
    pub digest: Vec<u8>,
}

impl Transaction {
    /// The content of transaction `seq` of `writer` with a note of `payload` bytes.
    pub fn of(writer: u32, seq: u64, payload: usize) -> Self {
        let seed = Sha256::digest(format!("{writer}/{seq}"));
        let src = i64::from(u32::from_be_bytes([seed[0], seed[1], seed[2], seed[3]])) % ACCOUNTS;
        let dst = (src + 1 + i64::from(seed[4]) % 50) % ACCOUNTS;
        let mut note = seed.repeat(payload.div_ceil(seed.len()));
        note.truncate(payload);
        Self { writer, seq, src, dst, amount: 1 + i64::from(seed[5]), list: i64::from(seed[6]) % LISTS, note }
    }
}

impl Chain {
    /// The chain with one more transaction.
    #[must_use]
    pub fn after(&self, transaction: &Transaction) -> Self {
        self.after_row(transaction.writer, transaction.seq, &transaction.note)
    }

    /// The chain with one more transaction, given as the ledger holds it.
    #[must_use]
    pub fn after_row(&self, writer: u32, seq: u64, note: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(&self.digest);
        hash.update(format!("{writer}/{seq}"));
        hash.update(note);
        Self { seq, digest: hash.finalize()[..16].to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_depends_on_writer_and_seq_only() {
        let once = Transaction::of(3, 7, 100);
        assert_eq!(once, Transaction::of(3, 7, 100));
        assert_ne!(once.note, Transaction::of(7, 3, 100).note);
        assert_eq!(Transaction::of(3, 7, 0).note.len(), 0);
        assert!((1..2000).all(|seq| {
            let t = Transaction::of(1, seq, 33);
            t.src != t.dst && t.note.len() == 33 && (1..=256).contains(&t.amount)
        }));
    }

    #[test]
    fn a_chain_tells_the_order() {
        let (a, b) = (Transaction::of(0, 1, 9), Transaction::of(0, 2, 9));
        assert_ne!(Chain::default().after(&a).after(&b).digest, Chain::default().after(&b).after(&a).digest);
    }
}
