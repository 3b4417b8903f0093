//! Deciding what to move: globs, walks, and where things land.

use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::transport::Transport;

/// What the user named, connected.
#[derive(Debug, Clone)]
pub struct Place {
    /// The endpoint, logged in.
    pub transport: Arc<dyn Transport>,
    /// What the user typed.
    pub endpoint: Endpoint,
}
