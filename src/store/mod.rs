//! The durable store (SQLite): journal, ledger, memory, history, lease.
