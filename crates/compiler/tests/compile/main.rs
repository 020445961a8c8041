//! What the compiler writes: goldens, and proofs that hostile texts stay texts.

mod golden;
mod hostile;
mod markdown;
mod plans;
