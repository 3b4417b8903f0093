//! What happens to transfers, shown as they go.

mod bars;

pub(crate) use bars::Bars;
