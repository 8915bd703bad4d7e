//! Explanations, with agents that answer and agents that do not.

use proto::v1::{self, State};
use tonic::Code;

use crate::cluster::{Cluster, assert_refused};

async fn explain(cluster: &Cluster, id: &str) -> v1::ExplainOperationResponse {
    let request = v1::ExplainOperationRequest { id: id.to_owned() };
    cluster.client.clone().explain_operation(request).await.unwrap().into_inner()
}

fn commands(told: &v1::ExplainOperationResponse) -> Vec<&str> {
    told.choices.iter().map(|choice| choice.command.as_str()).filter(|command| !command.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_operation_can_be_completed_or_cancelled() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    let told = explain(&cluster, &id).await;
    assert_eq!(commands(&told), [format!("causeway move complete {id}"), format!("causeway move cancel {id}")]);
    assert_eq!((told.source_agent.as_str(), told.dest_agent.as_str()), ("it is replicating", "it is replica"));
    assert_eq!(told.clients, "Clients may write at west.");
    assert!(told.since.is_some());
    let missing = v1::ExplainOperationRequest { id: "0-0".to_owned() };
    let missing = cluster.client.clone().explain_operation(missing).await;
    assert_refused(missing, Code::NotFound, "OPERATION_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_without_a_destination_says_who_is_waited_for_and_what_helps() {
    let mut cluster = Cluster::start().await;
    let id = cluster.fenced().await;
    cluster.dest.down().await;
    cluster.cancel(&id).await;
    cluster.until(&id, "waiting", |now| now.step.contains("closing attempt") && !now.waiting_for.is_empty()).await;
    let told = explain(&cluster, &id).await;
    assert_eq!(told.clients, "Nobody: west is closed, and east is not open.");
    assert!(told.dest_agent.starts_with("it does not answer"), "{}", told.dest_agent);
    assert!(told.choices[0].effect.starts_with("Start the destination agent of east again"), "{:?}", told.choices);
    assert!(commands(&told).contains(&format!("causeway operation force-unfence {id}").as_str()), "{told:?}");
    let since = told.since;
    assert!(since.is_some());
    let waits = told.waits;
    assert!(waits.len() == 1 && waits[0].whom.starts_with("destination agent east"), "{waits:?}");
    assert!(
        waits[0].since.is_some_and(|at| since.is_some_and(|since| at.seconds >= since.seconds)),
        "{waits:?} {since:?}"
    );
    let later = explain(&cluster, &id).await;
    assert_eq!(later.since, since, "waiting does not change since when");
    assert_eq!(later.waits[0].since, waits[0].since, "nor since when for whom");

    cluster.dest.up().await;
    cluster.cancelled(&id).await;
    let ended = explain(&cluster, &id).await;
    assert!(ended.choices.is_empty() && ended.summary.starts_with("It was cancelled"), "{ended:?}");
    assert_eq!(ended.operation.unwrap().state(), State::Cancelled);
}
