//! A connection of the pool in somebody's hands.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::pool::{Inner, Pooled};

/// A connection in use. Dropped without [`Lease::give_back`], it is discarded: nobody knows what state it is in.
pub(super) struct Lease<C: Pooled> {
    connection: Option<C>,
    slot: Slot<C>,
}

impl<C: Pooled> Lease<C> {
    /// Wraps a connection that the pool counts already.
    pub(super) fn new(connection: C, pool: Arc<Inner<C>>) -> Self {
        Self { connection: Some(connection), slot: Slot(pool) }
    }

    /// Puts the connection back for others, or discards it when it broke or is one too many.
    pub(super) fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            self.slot.0.take_back(connection);
        }
    }

    /// Discards the connection, and opens another in its place if it is wanted.
    pub(super) fn replace(self) {
        let pool = Arc::clone(&self.slot.0);
        drop(self);
        pool.refill();
    }

    /// Discards a connection that the server could not serve beside the others.
    pub(super) fn was_too_many(self) {
        let pool = Arc::clone(&self.slot.0);
        drop(self);
        pool.refuse();
    }

    /// Notes that something moves on this connection.
    pub(super) fn touch(&self) {
        self.slot.0.touch();
    }
}

impl<C: Pooled> Deref for Lease<C> {
    type Target = C;

    fn deref(&self) -> &C {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("only give_back takes it, and that consumes the lease"),
        }
    }
}

impl<C: Pooled> DerefMut for Lease<C> {
    fn deref_mut(&mut self) -> &mut C {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("only give_back takes it, and that consumes the lease"),
        }
    }
}

/// A place among the connections that are there; frees it when dropped.
struct Slot<C>(Arc<Inner<C>>);

impl<C> Drop for Slot<C> {
    fn drop(&mut self) {
        self.0.count_out();
    }
}
