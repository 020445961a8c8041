//! Reads and writes PostgreSQL.
