//! SFTP version 3.

use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ConnectOptions, Transport};

mod fields;
mod request;
mod response;
pub mod wire;

/// Connects and logs in.
pub async fn connect(_endpoint: &Endpoint, _options: &ConnectOptions) -> Result<Arc<dyn Transport>> {
    Err(Error::new(ErrorKind::Unsupported, "not built yet"))
}
