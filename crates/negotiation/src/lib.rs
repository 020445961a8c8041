//! The pure negotiation machine and its rules.
