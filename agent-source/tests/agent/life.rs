//! The life of a source agent: signs of life from the first moment, renewed certificates, and an end at once when the
//! lock is lost.

use crate::rig::{PATIENCE, client, memory, start};
use async_trait::async_trait;
use causeway_agent_source::Error;
use engines::{
    Result,
    host::RealHost,
    memory::{MemoryInstance, MemorySource},
    source::{DatabaseInfo, SourceEngine, SourceFacts, SourceStream},
};
use handover::{Attempt, CommandVersion, DatabaseName, Epoch, Kind, OperationId, Position, source_role::SourceRole};
use proto::v1;
use service::{
    Env, Tls, TlsFiles,
    certs::{Spec, issue_dev},
    env::{BoxFuture, Clock, Timestamp},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// A memory engine that is slow to tell its records: it does so only once it has heard two signs of life.
struct Slow {
    inner: MemorySource,
    beats: watch::Sender<u32>,
}

#[async_trait]
impl SourceEngine for Slow {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    async fn take_over(&self) -> Result<Epoch> {
        self.inner.take_over().await
    }
    async fn heartbeat(&self) -> Result<()> {
        self.beats.send_modify(|beats| *beats += 1);
        self.inner.heartbeat().await
    }
    async fn databases(&self) -> Result<Vec<DatabaseInfo>> {
        self.inner.databases().await
    }
    async fn preflight(&self, name: &DatabaseName, kind: Kind, op: Option<&OperationId>) -> Result<SourceFacts> {
        self.inner.preflight(name, kind, op).await
    }
    async fn roles(&self) -> Result<Vec<SourceRole>> {
        let mut beats = self.beats.subscribe();
        let _ = beats.wait_for(|beats| *beats >= 2).await;
        self.inner.roles().await
    }
    async fn put_role(&self, role: &SourceRole) -> Result<()> {
        self.inner.put_role(role).await
    }
    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        self.inner.remove_role(operation, version).await
    }
    async fn watermark(&self) -> Result<CommandVersion> {
        self.inner.watermark().await
    }
    async fn begin(&self, role: &SourceRole) -> Result<()> {
        self.inner.begin(role).await
    }
    async fn open(&self, role: &SourceRole) -> Result<Arc<dyn SourceStream>> {
        self.inner.open(role).await
    }
    async fn fence(&self, role: &mut SourceRole, grace: Duration) -> Result<Position> {
        self.inner.fence(role, grace).await
    }
    async fn mark(&self, role: &SourceRole, attempt: Attempt) -> Result<Position> {
        self.inner.mark(role, attempt).await
    }
    async fn unfence(&self, role: &SourceRole, next: &SourceRole) -> Result<()> {
        self.inner.unfence(role, next).await
    }
    async fn release(&self, role: &SourceRole, moved_to: &str) -> Result<()> {
        self.inner.release(role, moved_to).await
    }
    async fn cleanup(&self, role: &SourceRole) -> Result<()> {
        self.inner.cleanup(role).await
    }
}

#[tokio::test]
async fn signs_of_life_begin_before_the_operations_are_taken_up() {
    let env = Env::real();
    let inner = MemorySource::new(MemoryInstance::new(), Arc::new(RealHost));
    let agent = start(&env, Arc::new(Slow { inner, beats: watch::Sender::new(0) }), None).await;
    let described = async { client(&env, &agent).await.describe(v1::DescribeRequest {}).await.expect("described") };
    let described = env.timeout(PATIENCE, described).await.expect("it is taken up because it gives signs of life");
    assert_eq!(described.into_inner().epoch, 1);
    agent.shutdown.trigger();
    env.timeout(PATIENCE, agent.task).await.expect("in time").expect("no panic").expect("a good end");
}

#[tokio::test]
async fn a_call_that_finds_the_lock_lost_ends_the_agent_without_an_answer() {
    let env = Env::real();
    let instance = MemoryInstance::new();
    let agent = start(&env, memory(&instance), None).await;
    let mut client = client(&env, &agent).await;
    client.describe(v1::DescribeRequest {}).await.expect("it lives");
    // Only this call finds out; the sign of life that is due within the second would end the agent, too.
    instance.fail_next("preflight", engines::Error::Superseded { ours: 1, newer: 7 });
    let asked = client.preflight(v1::SourcePreflightRequest {
        database: "shop".to_owned(),
        kind: v1::Kind::Move.into(),
        ..Default::default()
    });
    let (answer, ended) = tokio::join!(asked, env.timeout(PATIENCE, agent.task));
    let ended = ended.expect("in time").expect("no panic");
    assert!(matches!(&ended, Err(Error::Superseded(engines::Error::Superseded { newer: 7, .. }))), "{ended:?}");
    let answer = answer.expect_err("no answer of an agent without a lock");
    assert!(service::status::is_transport(&answer), "{answer:?}");
}

/// Real time, but whoever waits for minutes waits for milliseconds.
#[derive(Debug)]
struct Impatient;

impl Clock for Impatient {
    fn now(&self) -> Timestamp {
        Env::real().now()
    }
    fn monotonic(&self) -> Duration {
        Env::real().monotonic()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Env::real().clock().sleep(duration.min(Duration::from_millis(20)))
    }
}

#[tokio::test]
async fn renewed_certificates_are_taken_up() {
    let (real, dir) = (Env::real(), tempfile::tempdir().expect("a directory"));
    let identity = "spiffe://causeway/agent-source/west";
    let issue = |now| issue_dev(dir.path(), &[Spec::new("agent", identity, now)], now).expect("a certificate");
    issue(Timestamp::from_millis(real.now().as_millis() - 86_400_000));
    let env = real.with_clock(Arc::new(Impatient));
    let tls = Tls::load(&env, TlsFiles::in_dir(dir.path(), "agent")).await.expect("certificates");
    let before = tls.not_after();
    let agent = start(&env, memory(&MemoryInstance::new()), Some(tls.clone())).await;
    issue(real.now());
    let renewed = async {
        while tls.not_after() == before {
            real.sleep(Duration::from_millis(5)).await;
        }
    };
    real.timeout(PATIENCE, renewed).await.expect("the agent follows renewals");
    agent.shutdown.trigger();
    real.timeout(PATIENCE, agent.task).await.expect("in time").expect("no panic").expect("a good end");
}
