//! Calling a user's code so that its panic goes no further.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `code`; a panic in it is an error with the panic's message.
#[inline]
pub(crate) fn isolated<R>(code: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(message)
}

/// Drops what a user made and nobody called.
pub(crate) fn drop_isolated<T>(what: T) {
    if let Err(message) = isolated(|| drop(what)) {
        log::error!("a destructor panicked: {message}");
    }
}

/// What a panic said.
#[cold]
fn message(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or("(no message)").to_owned();
    // The payload is the user's too, and its destructor may panic, with another such payload.
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(another);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_its_message() {
        assert_eq!(isolated(|| 7), Ok(7));
        assert_eq!(isolated(|| panic!("text")), Err::<(), _>("text".to_owned()));
        assert_eq!(isolated(|| panic!("{}", 1 + 1)), Err::<(), _>("2".to_owned()));
        let other = isolated(|| std::panic::panic_any(5));
        assert_eq!(other, Err::<(), _>("(no message)".to_owned()));
    }
}
