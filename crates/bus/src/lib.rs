//! Publish and subscribe behind one trait: in-process.
