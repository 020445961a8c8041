//! The data plane as a whole, over its public interface: one binary, because linking DataFusion is dear.

mod budget;
mod cli;
mod counts;
mod crash;
mod memory;
mod moves;
mod typing;
