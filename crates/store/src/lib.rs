//! The event log behind one trait: memory and sled.
