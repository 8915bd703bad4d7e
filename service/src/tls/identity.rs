//! Who is at the other end: the names in a verified certificate.

use std::fmt;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The names a certificate gives its holder. Only certificates that passed verification may be asked.
///
/// Causeway's own identities are URIs: `spiffe://causeway/coordinator`, `spiffe://causeway/agent-source/<instance>`,
/// `spiffe://causeway/agent-dest/<instance>` and `spiffe://causeway/user/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Subject alternative names that are URIs.
    pub uris: Vec<String>,
    /// Subject alternative names that are host names.
    pub dns: Vec<String>,
    /// The subject's common name.
    pub common_name: Option<String>,
}

/// The certificate cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("read the names of a certificate: {0}")]
pub struct IdentityError(String);

impl Identity {
    /// The names in a certificate in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| IdentityError(error.to_string()))?;
        let mut identity = Self {
            common_name: certificate
                .subject()
                .iter_common_name()
                .next()
                .and_then(|name| name.as_str().ok())
                .map(str::to_owned),
            ..Self::default()
        };
        let names = certificate.subject_alternative_name().map_err(|error| IdentityError(error.to_string()))?;
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::URI(uri) => identity.uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => identity.dns.push((*name).to_owned()),
                _ => {}
            }
        }
        Ok(identity)
    }

    /// Whether this is `name`. A URI must be among the URIs; anything else may be a host name, or the common name of a
    /// certificate that has no URIs. All compare exactly.
    ///
    /// A common name never counts for a URI: it is free text that many authorities let the requester choose.
    pub fn matches(&self, name: &str) -> bool {
        if name.contains("://") {
            return self.uris.iter().any(|uri| uri == name);
        }
        self.dns.iter().any(|dns| dns == name)
            || (self.uris.is_empty() && self.common_name.as_deref().is_some_and(|common| common == name))
    }

    /// The one name to show and to judge by: the first URI, else the common name, else the first host name.
    pub fn primary(&self) -> Option<&str> {
        self.uris.first().or(self.common_name.as_ref()).or(self.dns.first()).map(String::as_str)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.primary().unwrap_or("a certificate without names"))
    }
}
