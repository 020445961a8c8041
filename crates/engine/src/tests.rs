//! What the engine's tests share, and its tests with real processes.

mod crash;
mod fake_task;
pub(crate) mod fixture;
mod processes;
