//! An agent under test, a coordinator that commands it and a source agent that streams to it.

use crate::fake::World;
use agent_dest::config::Settings;
use causeway_agent_dest as agent_dest;
use handover::InstanceName;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use proto::v1::{
    AbortRequest, Decision, DestFrame, DestStatus, DestStatusRequest, DiscardRequest, FinishRequest, FinishResponse,
    ForgetRequest, Hello, Kind, LogAck, LogRecord, Marker, Part, Plan, PrepareRequest, PromoteRequest, SeedChunk,
    SeedEnd, SourceFrame, Welcome, dest_agent_client::DestAgentClient, dest_frame::Frame as Answer,
    source_frame::Frame, transfer_client::TransferClient,
};
use service::{Env, Shutdown, Tls, dial::Dialer, status::reason_of};
use std::time::Duration;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, body::Body, client::GrpcService, codegen::http, transport::Channel};

pub const OP: &str = "0190a000-0000-7000-8000-000000000001";
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Nothing here takes a second; a test that waits in vain should say so soon.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Agent {
    pub world: World,

    pub address: String,
    pub shutdown: Shutdown,
    pub task: JoinHandle<Result<(), agent_dest::Error>>,
    pub client: DestAgentClient<Channel>,
    channel: Channel,
}

pub fn settings() -> Settings {
    Settings::new(InstanceName::parse("east").expect("a name"))
}

impl Agent {
    pub async fn start(world: &World) -> Self {
        Self::start_with(world, settings(), None, None).await
    }

    pub async fn start_with(world: &World, settings: Settings, tls: Option<Tls>, ours: Option<Tls>) -> Self {
        let env = Env::real();
        let listener = env.listen("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shutdown = Shutdown::new();
        let run = agent_dest::run(env.clone(), listener, tls, world.engine(), settings, shutdown.clone());
        let task = tokio::spawn(run);
        let channel = Dialer::new(env.clone(), ours).connect(&address).await.expect("the agent answers");
        let client = DestAgentClient::new(channel.clone());
        Self { world: world.clone(), address, shutdown, task, client, channel }
    }

    /// Ends the agent without a word, as a crash would, and starts another one.
    pub async fn restart(self) -> Self {
        self.task.abort();
        Self::start(&self.world).await
    }

    pub async fn prepared_operation(world: &World) -> Self {
        let mut agent = Self::start(world).await;
        agent.prepare(1).await.expect("prepare");
        agent
    }

    /// An agent whose operation is at `Replica`, with the source's lane 0 at position 10.
    pub async fn replica(world: &World) -> (Self, Source) {
        let agent = Self::prepared_operation(world).await;
        let mut source = agent.source(hello()).await;
        source.welcome().await;
        source.seed().await;
        (agent, source)
    }

    pub async fn prepare(&mut self, version: u64) -> Result<(), Status> {
        self.client.prepare(prepare(OP, version)).await.map(|_| ())
    }

    pub async fn status(&mut self) -> DestStatus {
        self.client.get_status(DestStatusRequest { operation: OP.to_owned() }).await.expect("status").into_inner()
    }

    pub async fn promote(&mut self, attempt: u32, wait_ms: u64) -> Result<u64, Status> {
        let request = PromoteRequest { operation: OP.to_owned(), version: 5, attempt, wait_ms };
        self.client.promote(request).await.map(|answer| answer.into_inner().online_unix_us)
    }

    pub async fn abort(&mut self, attempt: u32, ask_only: bool) -> Decision {
        let request = AbortRequest { operation: OP.to_owned(), version: 5, attempt, token: String::new(), ask_only };
        self.client.abort(request).await.expect("abort").into_inner().decision()
    }

    pub async fn discard(&mut self, version: u64) -> Result<Decision, Status> {
        let request = DiscardRequest { operation: OP.to_owned(), version };
        self.client.discard(request).await.map(|answer| answer.into_inner().decision())
    }

    pub async fn finish(&mut self) -> Result<FinishResponse, Status> {
        let request = FinishRequest { operation: OP.to_owned(), version: 6 };
        self.client.finish(request).await.map(tonic::Response::into_inner)
    }

    pub async fn forget(&mut self, version: u64) -> Result<(), Status> {
        self.client.forget(ForgetRequest { operation: OP.to_owned(), version }).await.map(|_| ())
    }

    /// A lane that begins with `frame`.
    pub async fn source(&self, frame: Frame) -> Source {
        let (frames, sending) = mpsc::channel(64);
        let mut client = TransferClient::new(self.channel.clone()).max_encoding_message_size(8 << 20);
        frames.send(SourceFrame { frame: Some(frame) }).await.expect("open");
        let answers = client.replicate(ReceiverStream::new(sending)).await.expect("a stream").into_inner();
        Source { frames: Some(frames), answers, acked: LogAck::default() }
    }

    /// How the agent refuses a Hello.
    pub async fn refusal(&self, frame: Frame) -> Status {
        self.source(frame).await.refusal().await
    }

    /// How the agent ends a lane that begins with these frames and then announces one of `len` bytes, of which none comes.
    pub async fn announced(&self, frames: &[Frame], len: usize) -> Status {
        let mut bytes = Vec::new();
        for frame in frames {
            let frame = SourceFrame { frame: Some(frame.clone()) }.encode_to_vec();
            bytes.extend(prefix(frame.len()));
            bytes.extend(frame);
        }
        bytes.extend(prefix(len));
        let request = http::Request::post(format!("https://{}/causeway.v1.Transfer/Replicate", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::new(Full::new(bytes.into()).map_err(|never| match never {})))
            .expect("a request");
        let mut channel = self.channel.clone();
        std::future::poll_fn(|cx| GrpcService::poll_ready(&mut channel, cx)).await.expect("a channel");
        let answer = tokio::time::timeout(PATIENCE, GrpcService::call(&mut channel, request)).await;
        let body = answer.expect("an answer in time").expect("an answer").into_body();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("the end in time").expect("a body");
        Status::from_header_map(body.trailers().expect("trailers")).expect("a status")
    }

    pub fn transfer(&self) -> TransferClient<Channel> {
        TransferClient::new(self.channel.clone())
    }
}

pub fn prepare(operation: &str, version: u64) -> PrepareRequest {
    PrepareRequest {
        operation: operation.to_owned(),
        version,
        kind: Kind::Move.into(),
        database: "shop".to_owned(),
        token: TOKEN.to_owned(),
        source_identity: String::new(),
    }
}

/// What precedes a message of gRPC: uncompressed, and its length.
fn prefix(len: usize) -> Vec<u8> {
    let len = u32::try_from(len).expect("a length fits");
    [&[0], &len.to_be_bytes()[..]].concat()
}

/// The other side of a lane.
pub struct Source {
    frames: Option<mpsc::Sender<SourceFrame>>,
    answers: Streaming<DestFrame>,
    acked: LogAck,
}

impl Source {
    pub async fn send(&self, frame: Frame) {
        // The agent may have ended the stream; what it says then is what the test looks at.
        if let Some(frames) = &self.frames {
            let _ = frames.send(SourceFrame { frame: Some(frame) }).await;
        }
    }

    pub async fn send_nothing(&self) {
        if let Some(frames) = &self.frames {
            frames.send(SourceFrame { frame: None }).await.expect("send");
        }
    }

    /// Ends this side of the stream.
    pub fn close(&mut self) {
        self.frames = None;
    }

    pub async fn next(&mut self) -> Result<Option<Answer>, Status> {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("an answer in time")?;
        let answer = answer.map(|answer| answer.frame.expect("no empty frame"));
        if let Some(Answer::LogAck(ack)) = &answer {
            self.acked = ack.clone();
        }
        Ok(answer)
    }

    /// The next answer that `wanted` picks; others are passed over.
    pub async fn until<T>(&mut self, wanted: impl Fn(&Answer) -> Option<T>) -> T {
        loop {
            let answer = self.next().await.expect("the stream goes on").expect("the stream has not ended");
            if let Some(found) = wanted(&answer) {
                return found;
            }
        }
    }

    pub async fn welcome(&mut self) -> Welcome {
        match self.next().await.expect("a welcome").expect("a welcome") {
            Answer::Welcome(welcome) => welcome,
            other => panic!("{other:?} instead of a welcome"),
        }
    }

    /// How the agent ends the stream.
    pub async fn refusal(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without an error"),
                Err(status) => return status,
            }
        }
    }

    /// The stream ends without an error.
    pub async fn orderly_end(&mut self) {
        while self.next().await.expect("an orderly end").is_some() {}
    }

    pub async fn plan(&mut self, generation: u64, parts: u32) {
        self.send(plan(generation, parts)).await;
        let taken = self.until(|answer| match answer {
            Answer::PlanTaken(taken) => Some(taken.generation),
            _ => None,
        });
        assert_eq!(taken.await, generation);
    }

    /// Plans an empty seed, ends it and ships log up to position 10.
    pub async fn seed(&mut self) {
        self.plan(1, 0).await;
        self.send(Frame::SeedEnd(SeedEnd { generation: 1 })).await;
        self.until(|answer| matches!(answer, Answer::Seeded(_)).then_some(())).await;
        self.send(log(0, 10)).await;
        self.received("10").await;
    }

    pub async fn received(&mut self, position: &str) {
        while self.acked.received != position {
            self.until(|answer| matches!(answer, Answer::LogAck(_)).then_some(())).await;
        }
    }

    pub async fn durable(&mut self, position: &str) {
        while self.acked.durable != position {
            self.until(|answer| matches!(answer, Answer::LogAck(_)).then_some(())).await;
        }
    }

    /// Sends a marker; answers whether it was skipped.
    pub async fn marker(&mut self, attempt: u32, position: u64) -> bool {
        self.send(marker(attempt, position)).await;
        self.until(|answer| match answer {
            Answer::MarkerTaken(taken) if taken.attempt == attempt => Some(taken.skipped),
            _ => None,
        })
        .await
    }
}

pub fn hello_message() -> Hello {
    Hello {
        operation: OP.to_owned(),
        token: TOKEN.to_owned(),
        lane: 0,
        protocol: proto::PROTOCOL,
        engine: "memory".to_owned(),
        database: "shop".to_owned(),
        incarnation: "inode 7".to_owned(),
        epoch: 1,
        generation: 0,
    }
}

pub fn hello() -> Frame {
    Frame::Hello(hello_message())
}

pub fn seed_hello(lane: u32, generation: u64) -> Frame {
    Frame::Hello(Hello { lane, generation, ..hello_message() })
}

pub fn plan(generation: u64, parts: u32) -> Frame {
    let parts = (0..parts).map(|part| Part { part, object: "file".to_owned(), bytes: 100 }).collect();
    Frame::Plan(Plan {
        generation,
        parts,
        verify: generation > 1,
        log_start: "0".to_owned(),
        log_resume: "0".to_owned(),
        header: Default::default(),
    })
}

pub fn log_record(from: u64, to: u64, payload: &'static [u8]) -> LogRecord {
    LogRecord {
        from: from.to_string(),
        to: to.to_string(),
        payload: payload.into(),
        crc32c: crc32c::crc32c(payload),
        uncompressed: 0,
        transactions: 1,
        seen_unix_ms: 0,
    }
}

pub fn log(from: u64, to: u64) -> Frame {
    Frame::Log(log_record(from, to, b"frames"))
}

pub fn marker(attempt: u32, position: u64) -> Frame {
    Frame::Marker(Marker { attempt, position: position.to_string() })
}

pub fn chunk_message(part: u32, offset: u64, next_offset: u64, last: bool) -> SeedChunk {
    SeedChunk {
        generation: 1,
        part,
        offset,
        next_offset,
        last,
        payload: b"pages"[..].into(),
        crc32c: crc32c::crc32c(b"pages"),
        uncompressed: 0,
        rows: 0,
    }
}

pub fn chunk(part: u32, offset: u64, next_offset: u64, last: bool) -> Frame {
    Frame::Chunk(chunk_message(part, offset, next_offset, last))
}

#[track_caller]
pub fn is(status: &Status, code: Code, reason: &str) {
    assert_eq!((status.code(), reason_of(status).as_deref()), (code, Some(reason)), "{status:?}");
}
