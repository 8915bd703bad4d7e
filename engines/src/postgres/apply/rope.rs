//! Messages to the server, with large values left where they are.

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use std::{collections::VecDeque, io::IoSlice};

/// Values from this size on are not copied.
const LEAVE_BYTES: usize = 16 << 10;

/// Bytes to send, in pieces.
#[derive(Debug, Default)]
pub(super) struct Rope {
    done: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Rope {
    /// With room for so many bytes of small values.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { tail: BytesMut::with_capacity(bytes), ..Self::default() }
    }

    /// Puts bytes; a large piece of a payload is referred to.
    pub(super) fn put_value(&mut self, payload: &Bytes, value: &[u8]) {
        if value.len() >= LEAVE_BYTES {
            self.close();
            self.len += value.len();
            self.done.push_back(payload.slice_ref(value));
        } else {
            self.put(value);
        }
    }

    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        self.tail.put_slice(bytes);
    }

    #[inline]
    pub(super) fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    #[inline]
    pub(super) fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    #[inline]
    pub(super) fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// A message whose body is `len` bytes long begins.
    pub(super) fn begin(&mut self, tag: u8, len: usize) {
        self.put_u8(tag);
        self.put_u32(u32::try_from(len + 4).unwrap_or(u32::MAX));
    }

    /// A small message.
    pub(super) fn message(&mut self, tag: u8, body: &[u8]) {
        self.begin(tag, body.len());
        self.put(body);
    }

    /// Appends another one.
    pub(super) fn append(&mut self, mut other: Rope) {
        self.close();
        other.close();
        self.len += other.len;
        self.done.append(&mut other.done);
    }

    fn close(&mut self) {
        if !self.tail.is_empty() {
            self.done.push_back(self.tail.split().freeze());
        }
    }

    /// Ready to be sent.
    pub(super) fn finish(mut self) -> Self {
        self.close();
        self
    }
}

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.done.front().map_or(&self.tail, |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        for (slot, piece) in into.iter_mut().zip(&self.done) {
            *slot = IoSlice::new(piece);
            n += 1;
        }
        n
    }

    fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while count > 0 {
            let Some(front) = self.done.front_mut() else {
                self.tail.advance(count);
                return;
            };
            let step = count.min(front.len());
            front.advance(step);
            count -= step;
            if front.is_empty() {
                self.done.pop_front();
            }
        }
    }
}
