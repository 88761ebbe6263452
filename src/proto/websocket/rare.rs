//! What few connections have, and most only for moments.

use std::sync::Arc;

use super::error::ProtocolError;
use super::remote::Queue;
use crate::TimerId;

pub(super) struct Rare {
    /// Runs while a pong is awaited.
    pub(super) pong_timer: TimerId,
    /// Runs from this side's close frame on.
    pub(super) close_timer: TimerId,
    /// The peer's reason to close.
    pub(super) reason: String,
    pub(super) error: Option<ProtocolError>,
    /// What other threads send.
    pub(super) remote: Option<Arc<Queue>>,
}

impl Default for Rare {
    fn default() -> Rare {
        Rare {
            pong_timer: TimerId::NONE,
            close_timer: TimerId::NONE,
            reason: String::new(),
            error: None,
            remote: None,
        }
    }
}

impl Rare {
    pub(super) fn is_bare(&self) -> bool {
        self.pong_timer == TimerId::NONE
            && self.close_timer == TimerId::NONE
            && self.reason.is_empty()
            && self.error.is_none()
            && self.remote.is_none()
    }
}
