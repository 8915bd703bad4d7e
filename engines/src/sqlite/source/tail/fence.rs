//! The fence of a WAL database: short under the write lock, because everything slow was done before.

use super::{Sink, Tail};
use crate::{
    Error, Result,
    sqlite::source::{
        connect,
        feed::Feed,
        fence::{self, Call, stands},
    },
    sqlite::wire::Point,
};
use rusqlite::Connection;

impl Tail {
    /// Fences, and answers the end of the log before the fence. From then on the feed gives nothing beyond. On an error
    /// the database is open, as far as that can be known.
    pub fn fence(
        &mut self,
        db: Option<Connection>,
        feed: &Feed,
        sink: &mut dyn Sink,
        call: &mut Call<'_>,
    ) -> Result<Point> {
        self.check_files()?;
        let db = match db {
            Some(db) => db,
            None => connect::open(&self.path)?,
        };
        let page = connect::first_page(&db)?;
        if call.record(&page)? {
            // Our own, from before a crash. Nobody has written since, so the end of the log is as good a position as
            // the one before the fence: the images of page 1 in between travel without it.
            self.drain(sink)?;
            self.sync()?;
            feed.publish();
            self.fenced = true;
            return feed.cap(None);
        }
        self.drain(sink)?;
        self.sync()?;
        feed.publish();

        let until = sink.now() + call.grace;
        if !self.lock(&db, until, sink, call.stop)? {
            return Err(call.busy());
        }
        let fenced = self.fence_locked(&db, feed, sink, call);
        self.fenced = fenced.is_ok();
        if fenced.is_err() {
            connect::end(&db)?;
            feed.uncap();
        }
        fenced
    }

    fn fence_locked(
        &mut self,
        db: &Connection,
        feed: &Feed,
        sink: &mut dyn Sink,
        call: &mut Call<'_>,
    ) -> Result<Point> {
        let page = connect::first_page(db)?;
        if stands(&page) {
            return Err(fence::foreign());
        }
        self.drain(sink)?;
        // Readable at once, while the commit below still syncs the very frames: should power fail before it is done, the
        // fence is not durable either, and the next agent finds the WAL behind its position and verifies the seed.
        let point = feed.cap(None)?;
        feed.publish();
        fence::write(db, page)?;
        call.store.check()?;
        self.check_files()?;
        if !fence::try_commit(db)? {
            return Err(call.busy());
        }
        match self.check_files() {
            Ok(()) => Ok(point),
            Err(e) => Err(Error::Incarnation(format!("while it was fenced: {e}"))),
        }
    }
}
