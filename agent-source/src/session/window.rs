//! How much log may be under way: sent, and not yet received by the destination.

use handover::Position;
use std::{collections::VecDeque, sync::Mutex};
use tokio::sync::Notify;

/// Log under way at the most. It bounds what the destination's agent can have to hold; with 1 MiB records it is some 16 of
/// them, enough to fill 1 Gbit/s at 100 ms.
const BYTES_MAX: u64 = 16 << 20;

/// The records under way, oldest first.
#[derive(Debug, Default)]
pub struct Window {
    state: Mutex<State>,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    records: VecDeque<(Position, u64)>,
}

impl Window {
    /// Waits until another record may be sent.
    pub async fn room(&self) {
        loop {
            let freed = self.room.notified();
            if self.lock().bytes < BYTES_MAX {
                return;
            }
            freed.await;
        }
    }

    /// A record that ends at `to` is being sent.
    pub fn sent(&self, to: Position, bytes: u64) {
        let mut state = self.lock();
        state.bytes += bytes;
        state.records.push_back((to, bytes));
    }

    /// The destination has everything up to `position`; an unknown one is from before this stream and changes nothing.
    pub fn received(&self, position: &Position) {
        let mut state = self.lock();
        let Some(at) = state.records.iter().position(|(to, _)| to == position) else { return };
        let freed: u64 = state.records.drain(..=at).map(|(_, bytes)| bytes).sum();
        state.bytes -= freed;
        drop(state);
        self.room.notify_waiters();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Position {
        Position::parse(text).expect("a position")
    }

    #[tokio::test]
    async fn a_full_window_waits_for_an_ack() {
        let window = Window::default();
        window.sent(at("1"), BYTES_MAX / 2);
        window.room().await;
        window.sent(at("2"), BYTES_MAX);
        let waits = tokio::time::timeout(std::time::Duration::from_millis(20), window.room()).await;
        assert!(waits.is_err(), "there must be no room");
        window.received(&at("unknown"));
        window.received(&at("2"));
        window.room().await;
        assert_eq!(window.lock().bytes, 0);
    }
}
