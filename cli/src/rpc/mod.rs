//! The coordinator as the commands call it; the only place of this crate that knows of gRPC.

mod error;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proto::v1::{self, coordinator_client::CoordinatorClient};
use service::{Backoff, Env, Tls, dial::Dialer};
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::{args::GlobalArgs, exit::Exit, failure::Failure};

/// How long an answer may take: a start waits for the preflight at both agents, each of which may take several seconds.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// A call whose answer was lost is made again so many times; all calls are idempotent.
const TRIES: u32 = 3;
/// How long to wait for a coordinator that leads: longer than the lease of one that is gone.
const ELECTION_MAX: Duration = Duration::from_secs(40);

/// A connection to a coordinator, or to several of which one leads.
#[derive(Debug, Clone)]
pub struct Client {
    env: Env,
    /// One for each address.
    all: Vec<Inner>,
    /// Which of them is asked: the next one after a loss.
    turn: Arc<AtomicUsize>,
}

type Inner = CoordinatorClient<InterceptedService<Channel, Bearer>>;

/// The tries of one call.
struct Tries {
    begun: Duration,
    lost: u32,
    backoff: Backoff,
}

/// Puts the caller's token, if there is one, on every request.
#[derive(Debug, Clone, Default)]
pub struct Bearer(Option<AsciiMetadataValue>);

/// The updates of a watch, in order.
pub struct Updates(tonic::Streaming<v1::WatchOperationsResponse>);

/// Why a stream of updates ended before its time.
#[derive(Debug)]
pub enum Broken {
    /// The connection was lost; watching again may go on.
    Lost,
    /// The coordinator refused.
    Refused(Failure),
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                /// `doing` is for the failure's text.
                pub async fn $name(&self, doing: &str, request: v1::$request) -> Result<v1::$response, Failure> {
                    let mut tries = Tries { begun: self.env.monotonic(), lost: 0, backoff: Backoff::default() };
                    loop {
                        let mut request = Request::new(request.clone());
                        request.set_timeout(ANSWER_MAX);
                        match self.inner().$name(request).await {
                            Ok(response) => return Ok(response.into_inner()),
                            Err(status) if self.again(&status, &mut tries).await => {}
                            Err(status) => return Err(error::failure(doing, &status)),
                        }
                    }
                }
            )*
        }
    };
}

calls! {
    /// Makes an instance known.
    register_instance(RegisterInstanceRequest) -> RegisterInstanceResponse;
    /// All instances.
    list_instances(ListInstancesRequest) -> ListInstancesResponse;
    /// Forgets an instance.
    remove_instance(RemoveInstanceRequest) -> RemoveInstanceResponse;
    /// The databases of an instance.
    list_databases(ListDatabasesRequest) -> ListDatabasesResponse;
    /// Removes a tombstone.
    purge_database(PurgeDatabaseRequest) -> PurgeDatabaseResponse;
    /// Starts operations. Give a request id: then a lost answer starts nothing twice.
    start_operation(StartOperationRequest) -> StartOperationResponse;
    /// One operation.
    get_operation(GetOperationRequest) -> GetOperationResponse;
    /// One operation in words.
    explain_operation(ExplainOperationRequest) -> ExplainOperationResponse;
    /// A page of operations.
    list_operations(ListOperationsRequest) -> ListOperationsResponse;
    /// Completes operations.
    complete_operation(CompleteOperationRequest) -> CompleteOperationResponse;
    /// Cancels operations.
    cancel_operation(CancelOperationRequest) -> CancelOperationResponse;
    /// Override: gives a side up.
    forget_operation(ForgetOperationRequest) -> ForgetOperationResponse;
    /// Override: reopens the source.
    force_unfence(ForceUnfenceRequest) -> ForceUnfenceResponse;
    /// Override: opens the destination.
    force_promote(ForcePromoteRequest) -> ForcePromoteResponse;
    /// Who the caller is.
    who_am_i(WhoAmIRequest) -> WhoAmIResponse;
    /// Whether something is allowed.
    check_access(CheckAccessRequest) -> CheckAccessResponse;
    /// Takes up what the agents remember.
    adopt_operations(AdoptOperationsRequest) -> AdoptOperationsResponse;
}

impl Client {
    /// Connects to the coordinator of the flags; fails unless it answers.
    pub async fn connect(env: &Env, global: &GlobalArgs) -> Result<Self, Failure> {
        let wrong = |error| Failure::usage(service::status::chain(&error));
        let bearer = match &global.token_file {
            Some(path) => Bearer::read(env, path).await?,
            None => Bearer::default(),
        };
        let args = global.tls();
        let tls = match (&args.ca, &args.cert, &args.key) {
            // The token says who it is; the coordinator still has to prove itself.
            (Some(ca), None, None) if bearer.0.is_some() && !args.insecure => {
                Some(Tls::load_unproven(env, ca.clone(), args.crl.clone()).await.map_err(|error| wrong(error.into()))?)
            }
            _ => args.load(env).await.map_err(wrong)?,
        };
        Self::dial(&Dialer::new(env.clone(), tls), &global.coordinator, bearer).await
    }

    /// Connects to the coordinator at `addresses`; of several, with commas, to the first that answers.
    pub async fn dial(dialer: &Dialer, addresses: &str, bearer: Bearer) -> Result<Self, Failure> {
        let (mut all, mut turn, mut failed) = (Vec::new(), None, None);
        for (place, address) in addresses.split(',').enumerate() {
            let channel = match turn {
                Some(_) => dialer.channel(address),
                None => match dialer.connect(address).await {
                    Ok(channel) => {
                        turn = Some(place);
                        Ok(channel)
                    }
                    Err(error) => {
                        failed = Some(error);
                        dialer.channel(address)
                    }
                },
            };
            let channel = channel.map_err(|error| Self::unreached(&error))?;
            let inner = CoordinatorClient::with_interceptor(channel, bearer.clone());
            all.push(inner.max_decoding_message_size(proto::MESSAGE_BYTES_MAX));
        }
        match (turn, failed) {
            (None, Some(error)) => Err(Self::unreached(&error)),
            (turn, _) => {
                let turn = Arc::new(AtomicUsize::new(turn.unwrap_or(0)));
                Ok(Self { env: dialer.env().clone(), all, turn })
            }
        }
    }

    fn unreached(error: &service::dial::Error) -> Failure {
        use service::dial::Error::{Address, PlainText};
        let exit = if matches!(error, Address { .. } | PlainText { .. }) { Exit::Usage } else { Exit::Unreachable };
        // The error's text ends with its remedy, after a semicolon.
        let text = service::status::chain(error);
        match text.rsplit_once("; ") {
            Some((what, remedy)) => Failure::new(exit, "reach the coordinator", what).remedy(remedy),
            None => Failure::new(exit, "reach the coordinator", text),
        }
    }

    fn inner(&self) -> Inner {
        self.all[self.turn.load(Ordering::Relaxed) % self.all.len()].clone()
    }

    /// Whether a call that failed is to be made again; waits until it is time.
    async fn again(&self, status: &Status, tries: &mut Tries) -> bool {
        if error::awaits_leader(status) {
            if self.env.monotonic().saturating_sub(tries.begun) >= ELECTION_MAX {
                return false;
            }
        } else if error::was_lost(status) {
            tries.lost += 1;
            if tries.lost as usize >= TRIES as usize * self.all.len() {
                return false;
            }
            self.turn.fetch_add(1, Ordering::Relaxed);
        } else {
            return false;
        }
        tries.backoff.wait(&self.env).await;
        true
    }

    /// The environment it works in.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Watches operations: each as it is now, then every change.
    pub async fn watch(&self, ids: Vec<String>) -> Result<Updates, Broken> {
        let request = v1::WatchOperationsRequest { ids, batch: String::new() };
        match self.inner().watch_operations(request).await {
            Ok(response) => Ok(Updates(response.into_inner())),
            Err(status) => {
                if error::was_lost(&status) {
                    self.turn.fetch_add(1, Ordering::Relaxed);
                }
                Err(broken(&status))
            }
        }
    }
}

impl Bearer {
    /// The token in a file.
    async fn read(env: &Env, path: &Path) -> Result<Self, Failure> {
        let (file, doing) = (path.to_owned(), format!("read the token in {}", path.display()));
        let text = env.blocking(move || std::fs::read_to_string(file)).await;
        let text = text.map_err(|error| Failure::usage(format!("{doing}: {error}")))?;
        let value = match text.trim() {
            "" => None,
            token => AsciiMetadataValue::try_from(format!("Bearer {token}")).ok(),
        };
        let mut value = value.ok_or_else(|| Failure::usage(format!("{doing}: it holds no token")))?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Updates {
    /// The next update; `None` when all that is watched has ended.
    pub async fn next(&mut self) -> Result<Option<v1::Operation>, Broken> {
        loop {
            match self.0.message().await {
                Ok(None) => return Ok(None),
                Ok(Some(response)) => {
                    if let Some(operation) = response.operation {
                        return Ok(Some(operation));
                    }
                }
                Err(status) => return Err(broken(&status)),
            }
        }
    }
}

fn broken(status: &tonic::Status) -> Broken {
    match service::status::retryable(status) {
        true => Broken::Lost,
        false => Broken::Refused(error::failure("watch operations", status)),
    }
}
