//! Runs a sealed plan: the embedded engine, which starts dagwright-task.
