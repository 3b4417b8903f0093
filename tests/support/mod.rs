//! What the tests stand on: servers, targets, data.

// Each test program uses a part of it.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod data;
pub mod fault;
pub mod lab;
pub mod proxy;
pub mod target;
pub mod wan;
