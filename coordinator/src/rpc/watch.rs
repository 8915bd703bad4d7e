//! Watching: the operation now, then every change of its state, and its progress not too often, until it has ended.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream, stream::BoxStream};
use handover::{CommandVersion, OperationId};
use proto::v1;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Code, Status};

use super::{
    error::Error,
    fields::{Fields, NAMES_MAX},
    select, wire,
};
use crate::{
    auth::{Caller, Reader},
    core::Core,
    driver::{Following, View},
    store::Stored,
};

/// Four times a second is as often as a person can read.
const PAUSE: Duration = Duration::from_millis(250);

type Item = Result<v1::WatchOperationsResponse, Status>;

pub(super) async fn watch(
    core: &Arc<Core>,
    caller: &Caller,
    request: v1::WatchOperationsRequest,
) -> Result<BoxStream<'static, Item>, Error> {
    let mut fields = Fields::default();
    let batch = fields.batch_if_given("batch", &request.batch);
    let mut ids = fields.operations("ids", &request.ids);
    match (request.ids.is_empty(), request.batch.is_empty()) {
        (true, true) => fields.wrong("ids", format!("give 1 to {NAMES_MAX} ids, or a batch")),
        (false, false) => fields.wrong("batch", "give either ids or a batch"),
        _ => {}
    }
    fields.check()?;
    if let Some(batch) = batch {
        let mut reader = Reader::new(caller);
        for id in core.records.batch(&batch).await? {
            if reader.sees(core, select::one(core, &id).await?.operation()).await? {
                ids.push(id);
            }
        }
        if ids.is_empty() {
            return Err(Error::BatchNotFound(batch));
        }
    }
    for id in &ids {
        select::seen(core, caller, id).await?;
    }
    let version = caller.policy_version();
    let streams = ids.into_iter().map(|id| {
        let (watching, core, caller) = (follow(core.clone(), id.clone()), core.clone(), caller.clone());
        watching.then(move |item| still(core.clone(), caller.clone(), version, id.clone(), item)).boxed()
    });
    let shutdown = core.shutdown.clone();
    let stopping = async move {
        shutdown.wait().await;
        let problem = service::status::problem(Code::Unavailable, "the coordinator is being stopped");
        Err(problem.reason("SHUTTING_DOWN").remedy("watch again").retry_after(Duration::from_secs(1)).status())
    };
    // The status of a shutdown is the last item, whatever the operations do.
    let merged = stream::select_all(streams).map(Some).chain(stream::once(async { None }));
    let until_stopped = stream::once(stopping).map(Some);
    let all = stream::select(merged, until_stopped);
    let mut over = false;
    let ends = all.take_while(move |item| {
        let go_on = !over && item.is_some();
        over |= matches!(item, Some(Err(_)));
        std::future::ready(go_on)
    });
    Ok(ends.filter_map(std::future::ready).boxed())
}

/// A watch lives long: rights may be taken away and tokens run out meanwhile.
async fn still(core: Arc<Core>, caller: Caller, version: u64, id: OperationId, item: Item) -> Item {
    let item = item?;
    if caller.expired(core.env.now()) {
        return Err(Error::Expired.into());
    }
    if caller.policy_version() == version {
        return Ok(item);
    }
    let stored = select::one(&core, &id).await?;
    match Reader::new(&caller).sees(&core, stored.operation()).await.map_err(Error::from)? {
        true => Ok(item),
        false => Err(Error::OperationNotFound(format!("there is no operation {id}")).into()),
    }
}

enum Next {
    Now,
    After(Box<Followed>),
    Over,
}

struct Followed {
    following: Following,
    shown: CommandVersion,
    /// When the next news of mere progress may be told, by the monotonic clock.
    progress_at: Duration,
}

/// One operation until it has ended: every change of its record, and progress now and then.
fn follow(core: Arc<Core>, id: OperationId) -> impl Stream<Item = Item> {
    stream::unfold(Next::Now, move |next| {
        let (core, id) = (core.clone(), id.clone());
        async move {
            let (view, mut followed) = match next {
                Next::Over => return None,
                Next::Now => match core.hub.follow(&id) {
                    Some(mut following) => {
                        let view = following.view.borrow_and_update().clone();
                        let shown = view.stored.version;
                        (view, Box::new(Followed { following, shown, progress_at: Duration::ZERO }))
                    }
                    None => return Some((last(&core, &id).await, Next::Over)),
                },
                Next::After(mut followed) => match news(&core, &mut followed).await {
                    Some(view) => (view, followed),
                    None => return Some((last(&core, &id).await, Next::Over)),
                },
            };
            followed.shown = view.stored.version;
            followed.progress_at = core.env.monotonic() + PAUSE;
            let item = Ok(v1::WatchOperationsResponse { operation: Some(wire::from_view(&core, &view)) });
            let ended = view.stored.operation().state.ended();
            Some((item, if ended { Next::Over } else { Next::After(followed) }))
        }
    })
}

/// What is to be told next; nothing once the hub has dropped the operation without it being told here.
async fn news(core: &Core, followed: &mut Followed) -> Option<View> {
    let Followed { following: Following { view, changes }, shown, progress_at } = followed;
    loop {
        let pause = progress_at.saturating_sub(core.env.monotonic());
        let progress = async {
            core.env.sleep(pause).await;
            view.changed().await
        };
        tokio::select! {
            biased;
            change = changes.recv() => match change {
                Ok(change) if change.stored.version > *shown => return Some(change),
                // What progress has told already, or more changes than are kept for the slow.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            },
            // Closed: the changes, which are looked at first, say what there is to say.
            Ok(()) = progress => {
                let now = view.borrow_and_update().clone();
                // A change of the record comes by the other way, one by one.
                if now.stored.version == *shown {
                    return Some(now);
                }
            }
        }
    }
}

/// The operation as stored: for one that has ended.
async fn last(core: &Core, id: &OperationId) -> Item {
    let stored: Stored = select::one(core, id).await?;
    Ok(v1::WatchOperationsResponse { operation: Some(wire::operation(core, &stored)) })
}
