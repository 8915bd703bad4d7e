//! Who may do what: callers are recognised, their requests counted, judged by Cedar policies and written to the audit log.
//!
//! Each request is an [`Entry`], and none gets to a handler without a [`Caller`]. A handler says what it needs through the
//! caller's `may_...` functions, which stand in [`rights`]; nothing else of the coordinator knows of policies.

mod audit;
mod caller;
mod config;
mod entry;
mod jwt;
mod names;
mod policy;
mod resource;
mod rights;
mod throttle;
mod tokens;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use service::{Env, Shutdown};

use audit::Audit;
use jwt::Keys;
use policy::Policy;
use throttle::Throttle;
use tokens::Tokens;
use watched::Watched;

pub use caller::Caller;
pub use config::{AuthArgs, AuthConfig, JwtConfig};
pub use entry::{Entry, Passed, Refusal, Shown};
pub use names::{Action, Name, Principal, Proof};
pub use policy::Verdict;
pub use resource::{Place, Resource, Within};
pub use rights::{Ends, Missing, Reader, Refused};

/// How often the files are looked at. They are small, and whoever takes a right away wants it gone.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What decides about callers; made once.
pub struct Auth {
    env: Env,
    policy: Watched<Policy>,
    tokens: Option<Watched<Tokens>>,
    jwt: Option<Watched<Keys>>,
    throttle: Throttle,
    audit: Option<Audit>,
}

/// Why the files about callers are no good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is missing or wrong.
    #[error(transparent)]
    File(#[from] watched::Error),
    /// The audit log cannot be written.
    #[error("open the audit log {path:?}: {source}; check --audit and the directory's permissions")]
    Audit {
        /// Where.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Auth {
    /// Read all files. A wrong one is an error here; later, when it changes, the one before stays in use.
    pub async fn open(env: &Env, config: &AuthConfig) -> Result<Arc<Self>, Error> {
        let policy = match &config.policy {
            Some(path) => {
                let paths = std::iter::once(path).chain(&config.groups).cloned().collect();
                Watched::open(env, "policy", paths, Box::new(Policy::read)).await?
            }
            None => {
                tracing::warn!(
                    "no --policy is given: every user with a certificate or a token may do everything, and nobody else anything"
                );
                Watched::fixed("policy", Policy::everybody())
            }
        };
        let tokens = match &config.tokens {
            Some(path) => Some(Watched::open(env, "tokens", vec![path.clone()], Box::new(Tokens::read)).await?),
            None => None,
        };
        let jwt = match &config.jwt {
            Some(rules) => {
                let (path, rules) = (rules.keys.clone(), rules.clone());
                let read = Box::new(move |texts: &[String]| Keys::read(texts, &rules));
                Some(Watched::open(env, "JWT keys", vec![path], read).await?)
            }
            None => None,
        };
        let audit = match &config.audit {
            Some(path) => Some(Audit::open(env, path).await?),
            None => None,
        };
        let throttle = Throttle::new(config.requests_per_second, config.requests_at_once);
        Ok(Arc::new(Self { env: env.clone(), policy, tokens, jwt, throttle, audit }))
    }

    /// Whether callers may come without a certificate, because they can show a token.
    pub fn takes_tokens(&self) -> bool {
        self.tokens.is_some() || self.jwt.is_some()
    }

    /// What the policies say. Only [`Caller`] asks on behalf of a request; this is for questions about others.
    pub fn judge(&self, who: &Principal, action: Action, resource: &Resource) -> Verdict {
        self.policy.current().judge(who, action, resource)
    }

    /// Grows with every change of the policies that is taken up.
    pub fn policy_version(&self) -> u64 {
        self.policy.version()
    }

    /// Whether a policy file is given.
    pub fn has_policy(&self) -> bool {
        self.policy.is_a_file()
    }

    /// All groups somebody is in.
    pub fn groups_of(&self, who: &Principal) -> Vec<String> {
        self.policy.current().groups_of(who)
    }

    /// Follow the files and write the audit log, until `shutdown`; what is in the log's queue then is still written.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let following = async {
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.wait() => return,
                    () = self.env.sleep(LOOK_EVERY) => {}
                }
                self.policy.look(&self.env).await;
                if let Some(tokens) = &self.tokens {
                    tokens.look(&self.env).await;
                }
                if let Some(jwt) = &self.jwt {
                    jwt.look(&self.env).await;
                }
            }
        };
        let writing = async {
            if let Some(audit) = &self.audit {
                audit.run(&shutdown).await;
            }
        };
        futures::join!(following, writing);
    }

    /// Write what is left of the audit log, after the last request.
    pub async fn close(&self) {
        if let Some(audit) = &self.audit {
            audit.flush().await;
        }
    }
}

#[cfg(test)]
mod tests;
