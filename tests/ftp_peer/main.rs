//! FTP against a scripted peer that says what real servers say on bad days, and what hostile ones would.

#![allow(clippy::unwrap_used, clippy::case_sensitive_file_extension_comparisons)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use haul::transport::{
    ActivePorts, ConnectOptions, Durability, Entry, Finish, Follow, Mtime, ReadRange, RemotePath, Replace, SetMetadata,
    TlsMode, Transport, WriteMode,
};
use haul::{ErrorKind, Result};
use peer::{Act, Peer};

mod empty;
mod liars;
mod peer;
mod safety;
mod stalls;
mod store;
mod tls;
mod transfers;

fn path(text: &str) -> RemotePath {
    RemotePath::new(text).unwrap()
}

fn quick() -> ConnectOptions {
    ConnectOptions { timeout: Duration::from_millis(400), ..ConnectOptions::default() }
}

/// Options for no more than one connection.
fn single() -> ConnectOptions {
    ConnectOptions { max_connections: Some(1), ..ConnectOptions::default() }
}

async fn read(transport: &dyn Transport, range: ReadRange) -> Result<Vec<u8>> {
    let mut stream = transport.open_read(&path("/f"), range).await?;
    let mut bytes = Vec::new();
    loop {
        let chunk = stream.read().await?;
        if chunk.is_empty() {
            break;
        }
        bytes.extend_from_slice(&chunk);
    }
    stream.finish().await?;
    Ok(bytes)
}

async fn write(transport: &dyn Transport, mode: WriteMode) -> Result<()> {
    let mut stream = transport.open_write(&path("/f"), mode).await?;
    stream.write(Bytes::from_static(b"0123456789")).await?;
    stream.finish(Finish::CACHED).await.map(|_| ())
}

async fn list(transport: &dyn Transport) -> Result<Vec<Entry>> {
    transport.list(&path("/d")).await?.try_collect().await
}

/// Options with which the server connects to us for data.
fn active(mut options: ConnectOptions) -> ConnectOptions {
    options.ftp.active = Some(ActivePorts::ANY);
    options
}
