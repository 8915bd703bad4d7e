//! The flags about callers.

use std::path::PathBuf;

use super::names;

/// Flags about who may do what.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Callers")]
pub struct AuthArgs {
    /// Cedar policies that say who may do what; nothing is allowed that none permits. Without it every user may do everything
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_POLICY")]
    pub policy: Option<PathBuf>,

    /// TOML file of groups for the policies: team = ["ann", "group:others", "service:spiffe://example/ci"]
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_GROUPS", requires = "policy")]
    pub groups: Option<PathBuf>,

    /// TOML file of users who come with a token instead of a certificate; `causeway auth token` makes its entries
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_TOKENS")]
    pub tokens: Option<PathBuf>,

    /// JWKS file with the public keys of an identity provider whose JSON Web Tokens are taken; needs --policy
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_JWT_KEYS", requires_all = ["jwt_issuer", "jwt_audience"])]
    pub jwt_keys: Option<PathBuf>,

    /// What the claim `iss` of a JSON Web Token must be
    #[arg(long, value_name = "URL", env = "CAUSEWAY_JWT_ISSUER", requires = "jwt_keys")]
    pub jwt_issuer: Option<String>,

    /// What the claim `aud` of a JSON Web Token must hold
    #[arg(long, value_name = "NAME", env = "CAUSEWAY_JWT_AUDIENCE", requires = "jwt_keys")]
    pub jwt_audience: Option<String>,

    /// The claim of a JSON Web Token that names the user
    #[arg(long, value_name = "CLAIM", env = "CAUSEWAY_JWT_USER_CLAIM", default_value = "sub")]
    pub jwt_user_claim: String,

    /// The claim of a JSON Web Token that lists the user's groups
    #[arg(long, value_name = "CLAIM", env = "CAUSEWAY_JWT_GROUPS_CLAIM", default_value = "groups")]
    pub jwt_groups_claim: String,

    /// Put before the users and groups of JSON Web Tokens, so that the provider cannot name yours, such as "idp:"
    #[arg(long, value_name = "TEXT", env = "CAUSEWAY_JWT_PREFIX", default_value = "")]
    pub jwt_prefix: String,

    /// Write every request as a JSON line to this file, or to standard output with "-"
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_AUDIT")]
    pub audit: Option<PathBuf>,

    /// Requests that one caller may make a second; twice as many in one burst
    #[arg(long, value_name = "COUNT", env = "CAUSEWAY_REQUESTS_PER_SECOND", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub requests_per_second: u32,

    /// Requests, watches among them, that one caller may have under way
    #[arg(long, value_name = "COUNT", env = "CAUSEWAY_REQUESTS_AT_ONCE", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub requests_at_once: u32,
}

/// What decides about callers.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The policies.
    pub policy: Option<PathBuf>,
    /// The groups.
    pub groups: Option<PathBuf>,
    /// The tokens.
    pub tokens: Option<PathBuf>,
    /// JSON Web Tokens.
    pub jwt: Option<JwtConfig>,
    /// The audit log; `-` is standard output.
    pub audit: Option<PathBuf>,
    /// Rate of one caller.
    pub requests_per_second: u32,
    /// Requests of one caller under way.
    pub requests_at_once: u32,
}

/// Which JSON Web Tokens are taken.
#[derive(Debug, Clone)]
pub struct JwtConfig {
    /// The JWKS file.
    pub keys: PathBuf,
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// The claim with the user.
    pub user_claim: String,
    /// The claim with the groups.
    pub groups_claim: String,
    /// Put before users and groups.
    pub user_prefix: String,
}

impl Default for AuthConfig {
    /// As without any flag.
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            auth: AuthArgs,
        }
        let args = <Only as clap::Parser>::parse_from(["default"]).auth;
        Self::new(&args).expect("no flags are good flags")
    }
}

impl AuthConfig {
    /// Check the flags, which may have come from a file, one by one. The error says what is wrong.
    pub fn new(args: &AuthArgs) -> Result<Self, String> {
        let jwt = match (&args.jwt_keys, &args.jwt_issuer, &args.jwt_audience) {
            (None, None, None) => None,
            (Some(keys), Some(issuer), Some(audience)) if !issuer.is_empty() && !audience.is_empty() => {
                if args.policy.is_none() {
                    let what =
                        "--jwt-keys needs --policy: without one everybody whom the provider knows could do everything";
                    return Err(what.to_owned());
                }
                if !args.jwt_prefix.is_empty() {
                    names::check(&args.jwt_prefix).map_err(|why| format!("--jwt-prefix: {why}"))?;
                }
                Some(JwtConfig {
                    keys: keys.clone(),
                    issuer: issuer.clone(),
                    audience: audience.clone(),
                    user_claim: args.jwt_user_claim.clone(),
                    groups_claim: args.jwt_groups_claim.clone(),
                    user_prefix: args.jwt_prefix.clone(),
                })
            }
            _ => return Err("--jwt-keys, --jwt-issuer and --jwt-audience belong together: give all three".to_owned()),
        };
        if args.groups.is_some() && args.policy.is_none() {
            return Err("--groups needs --policy: groups are for policies".to_owned());
        }
        Ok(Self {
            policy: args.policy.clone(),
            groups: args.groups.clone(),
            tokens: args.tokens.clone(),
            jwt,
            audit: args.audit.clone(),
            requests_per_second: args.requests_per_second,
            requests_at_once: args.requests_at_once,
        })
    }
}
