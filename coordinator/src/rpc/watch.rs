//! Watching: the operation now, and then on every change, not too often, until it has ended.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream, stream::BoxStream};
use handover::OperationId;
use proto::v1;
use tonic::{Code, Status};

use super::{
    error::Error,
    fields::{Fields, NAMES_MAX},
    select, wire,
};
use crate::{core::Core, driver::View, store::Stored};

/// Four times a second is as often as a person can read.
const PAUSE: Duration = Duration::from_millis(250);

type Item = Result<v1::WatchOperationsResponse, Status>;

pub(super) async fn watch(
    core: &Arc<Core>,
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
        ids = core.records.batch(&batch).await?;
        if ids.is_empty() {
            return Err(Error::BatchNotFound(batch));
        }
    }
    for id in &ids {
        select::one(core, id).await?;
    }
    let streams = ids.into_iter().map(|id| follow(core.clone(), id).boxed());
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

enum Next {
    Now,
    After(tokio::sync::watch::Receiver<View>),
    Over,
}

/// One operation until it has ended.
fn follow(core: Arc<Core>, id: OperationId) -> impl Stream<Item = Item> {
    stream::unfold(Next::Now, move |next| {
        let (core, id) = (core.clone(), id.clone());
        async move {
            let mut receiver = match next {
                Next::Over => return None,
                Next::Now => match core.hub.subscribe(&id) {
                    Some(receiver) => receiver,
                    None => return Some((last(&core, &id).await, Next::Over)),
                },
                Next::After(mut receiver) => {
                    core.env.sleep(PAUSE).await;
                    // Closed: it has ended, and the last view may be seen already. Only the store knows the end.
                    if receiver.changed().await.is_err() {
                        return Some((last(&core, &id).await, Next::Over));
                    }
                    receiver
                }
            };
            let view = receiver.borrow_and_update().clone();
            let item = Ok(v1::WatchOperationsResponse { operation: Some(wire::from_view(&core, &view)) });
            let next = if view.stored.operation().state.ended() { Next::Over } else { Next::After(receiver) };
            Some((item, next))
        }
    })
}

/// The operation as stored: for one that has ended.
async fn last(core: &Core, id: &OperationId) -> Item {
    let stored: Stored = select::one(core, id).await?;
    Ok(v1::WatchOperationsResponse { operation: Some(wire::operation(core, &stored)) })
}
