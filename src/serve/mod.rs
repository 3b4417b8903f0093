//! Embedded servers.

mod root;
pub use root::Access;
