//! What the tests stand on: servers, targets, data.

// Each test program uses a part of it.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod client;
pub mod data;
pub mod disk;
pub mod fault;
pub mod lab;
pub mod proxy;
pub mod served;
pub mod serving;
pub mod target;
pub mod wan;
pub mod watch;
