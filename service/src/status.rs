//! Rich gRPC errors: a stable reason, violations, when to retry and the remedy, as google.rpc details, and back again.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, PreconditionViolation, StatusExt as _};

/// The `domain` of every ErrorInfo from Causeway.
pub const DOMAIN: &str = "causeway";
const REMEDY: &str = "remedy";
const OMITTED: &str = "omitted";

/// Details travel in an HTTP/2 trailer in base64, a third longer: this keeps it at 4 KiB, a quarter of what peers accept.
const DETAILS_BYTES_MAX: usize = 3 * 1024;
/// The message travels twice, once of it percent-encoded: at worst this fills another 4 KiB.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Each text within the details, so that a single one cannot fill them.
const TEXT_BYTES_MAX: usize = 512;

/// An error for a gRPC caller under construction; `Status::from` (or [`Problem::status`]) makes the status.
#[derive(Debug, Clone)]
#[must_use]
pub struct Problem {
    code: Code,
    message: String,
    reason: Option<String>,
    metadata: HashMap<String, String>,
    fields: Vec<(String, String)>,
    preconditions: Vec<PreconditionViolation>,
    retry: Option<Duration>,
}

/// A problem with this code and sentence.
pub fn problem(code: Code, message: impl Into<String>) -> Problem {
    Problem {
        code,
        message: message.into(),
        reason: None,
        metadata: HashMap::new(),
        fields: Vec::new(),
        preconditions: Vec::new(),
        retry: None,
    }
}

impl Problem {
    /// The stable reason, in UPPER_SNAKE_CASE, for programs.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// What the user can do about it, as a sentence.
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        self.meta(REMEDY, remedy)
    }

    /// A further fact for programs.
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), clip(value.into(), TEXT_BYTES_MAX));
        self
    }

    /// A request field that is wrong, such as `databases[1]`, and how.
    pub fn field(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.fields.push((clip(field.into(), TEXT_BYTES_MAX), clip(description.into(), TEXT_BYTES_MAX)));
        self
    }

    /// A state of things that must change first: its kind (a finding's code), what it is about, and a sentence.
    pub fn precondition(
        mut self,
        kind: impl Into<String>,
        subject: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        self.preconditions.push(PreconditionViolation::new(
            clip(kind.into(), TEXT_BYTES_MAX),
            clip(subject.into(), TEXT_BYTES_MAX),
            clip(description.into(), TEXT_BYTES_MAX),
        ));
        self
    }

    /// When it makes sense to try again.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry = Some(delay);
        self
    }

    /// The status. What does not fit is left out from the end of the violations; the metadata `omitted` counts it.
    pub fn status(mut self) -> Status {
        self.message = clip(self.message, MESSAGE_BYTES_MAX);
        let mut omitted = 0usize;
        loop {
            let status = self.build(omitted);
            if status.details().len() <= DETAILS_BYTES_MAX {
                return status;
            }
            if self.preconditions.pop().is_none() && self.fields.pop().is_none() {
                // Only metadata is left to give way; reason and remedy are what the caller needs.
                self.metadata.retain(|key, _| key == REMEDY);
                return self.build(omitted);
            }
            omitted += 1;
        }
    }

    fn build(&self, omitted: usize) -> Status {
        let mut details = ErrorDetails::new();
        let mut metadata = self.metadata.clone();
        if omitted > 0 {
            metadata.insert(OMITTED.to_owned(), omitted.to_string());
        }
        if self.reason.is_some() || !metadata.is_empty() {
            let reason = self.reason.clone().unwrap_or_else(|| "UNSPECIFIED".to_owned());
            details.set_error_info(clip(reason, 63), DOMAIN, metadata);
        }
        for (field, description) in &self.fields {
            details.add_bad_request_violation(field, description);
        }
        if !self.preconditions.is_empty() {
            details.set_precondition_failure(self.preconditions.clone());
        }
        if self.retry.is_some() {
            details.set_retry_info(self.retry);
        }
        Status::with_error_details(self.code, self.message.clone(), details)
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        problem.status()
    }
}

/// The stable reason, if Causeway gave one.
pub fn reason_of(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == DOMAIN).map(|info| info.reason)
}

/// What to do about it, if it says so.
pub fn remedy_of(status: &Status) -> Option<String> {
    status.get_details_error_info()?.metadata.remove(REMEDY)
}

/// When to try again, if it says so.
pub fn retry_after_of(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// Whether the connection failed rather than the other side answering: made here, never received.
pub fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Whether the very same call may succeed later.
pub fn retryable(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => true,
        // A connection that breaks in the middle of a call gives these codes, on this side only.
        Code::Unknown | Code::Cancelled | Code::Internal => is_transport(status),
        _ => false,
    }
}

/// All a user should read: the sentence, its causes, each violation on a line, and the remedy.
pub fn describe(status: &Status) -> String {
    let mut text = match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    // Causes exist only for errors made on this side.
    if let Some(cause) = std::error::Error::source(status) {
        append(&mut text, cause);
    }
    let details = status.get_error_details();
    for violation in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
        text.push_str(&format!("\n  {}: {}", violation.field, violation.description));
    }
    for violation in details.precondition_failure().iter().flat_map(|failure| &failure.violations) {
        text.push_str(&format!("\n  {}: {}", violation.subject, violation.description));
    }
    if let Some(info) = details.error_info() {
        if let Some(count) = info.metadata.get(OMITTED) {
            text.push_str(&format!("\n  and {count} more"));
        }
        if let Some(remedy) = info.metadata.get(REMEDY) {
            text.push_str(&format!("\n  remedy: {remedy}"));
        }
    }
    text
}

/// An error with its causes, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    if let Some(cause) = error.source() {
        append(&mut text, cause);
    }
    text
}

/// Wrappers often repeat what they wrap; what is there already is left out.
fn append(text: &mut String, error: &(dyn std::error::Error + 'static)) {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
}

fn clip(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let ellipsis = "…";
        let mut end = bytes_max - ellipsis.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(ellipsis);
    }
    text
}

#[cfg(test)]
mod tests;
