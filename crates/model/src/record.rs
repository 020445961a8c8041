//! The ledger's records: what happened to a request, in order.
