//! What the server's errors mean to the caller, by their SQLSTATE.

use crate::Error;

/// An error of the server; `fatal` says that the session is over. Its detail and hint may hold row values and stay out.
pub(crate) fn error(what: String, state: &str, message: &str, fatal: bool) -> Error {
    if state == "53100" {
        return Error::DiskFull(format!("{what}: {message}"));
    }
    // The words of a data exception repeat the value: `invalid input syntax for type integer: "..."`. Not so 22023, which speaks
    // of a setting or a function's parameter.
    let words = if state.starts_with("22") && state != "22023" { "data exception" } else { message };
    // A connection is refused because the database is fenced; it opens again when the attempt is given up.
    let fenced = fatal && state == "55000";
    Error::Database { what, message: format!("{words} (SQLSTATE {state})"), transient: fenced || transient(state) }
}

/// Whether the server said one of these.
pub(crate) fn is_one_of(error: &Error, states: &[&str]) -> bool {
    let Error::Database { message, .. } = error else { return false };
    let said = message.strip_suffix(')').and_then(|message| message.rsplit_once("(SQLSTATE "));
    said.is_some_and(|(_, state)| states.contains(&state))
}

/// Whether the same statement may succeed later: the server is away or busy, or somebody was in the way.
fn transient(state: &str) -> bool {
    // Connections, resources, operators ("57P01 terminating"), locks ("55P03"), serialisation and deadlocks, IO.
    matches!(state.get(..2), Some("08" | "53" | "57" | "40" | "58")) || state == "55P03" || state == "55006"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_say_what_may_be_tried_again_and_hide_values() {
        let of = |state, fatal| error("try".to_owned(), state, "say \"hunter2\"", fatal);
        for (state, fatal, again) in [
            ("40P01", false, true),
            ("55P03", false, true),
            ("57P01", true, true),
            ("53300", true, true),
            ("53100", false, true),
            ("55000", true, true),
            ("55000", false, false),
            ("28P01", true, false),
            ("42601", false, false),
        ] {
            assert_eq!(of(state, fatal).retryable(), again, "{state}");
        }
        assert!(matches!(of("53100", false), Error::DiskFull(_)));
        assert_eq!(of("22P02", false).to_string(), "try: data exception (SQLSTATE 22P02)");
        assert!(of("22023", false).to_string().contains("hunter2"), "it is no row's");
    }

    #[test]
    fn a_state_is_recognised_at_the_end_alone() {
        let duplicate = error("try".to_owned(), "23505", "mentions (SQLSTATE 42704)", false);
        assert!(is_one_of(&duplicate, &["42704", "23505"]) && !is_one_of(&duplicate, &["42704"]));
        assert!(!is_one_of(&Error::Busy("(SQLSTATE 23505)".to_owned()), &["23505"]));
    }
}
