//! One channel per address, for command calls; lanes of a transfer take their own from the dialer.

use std::collections::HashMap;
use std::sync::Mutex;

use tonic::transport::Channel;

use super::{DialOptions, Dialer, Error};

/// More addresses than any coordinator has agents; beyond it the pool starts afresh rather than grow for ever.
const MOST: usize = 4096;

/// Caches channels by address and expected identity. A lost connection is dialled again by its channel.
#[derive(Debug)]
pub struct Pool {
    dialer: Dialer,
    channels: Mutex<HashMap<(String, Option<String>), Channel>>,
}

impl Pool {
    /// An empty pool.
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer, channels: Mutex::default() }
    }

    /// The channel to `address`, connecting at its first call.
    pub fn get(&self, address: &str) -> Result<Channel, Error> {
        self.get_with(address, &DialOptions::default())
    }

    /// The channel to `address` whose other side must be `identity`.
    pub fn get_expecting(&self, address: &str, identity: &str) -> Result<Channel, Error> {
        self.get_with(address, &DialOptions::default().expecting(identity))
    }

    fn get_with(&self, address: &str, options: &DialOptions) -> Result<Channel, Error> {
        let key = (address.to_owned(), options.expect.clone());
        let mut channels = self.channels.lock().expect("no holder of this lock panics");
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        let channel = self.dialer.channel_with(address, options)?;
        if channels.len() >= MOST {
            channels.clear();
        }
        channels.insert(key, channel.clone());
        Ok(channel)
    }

    /// The dialer it uses, for connections of one's own.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }
}
