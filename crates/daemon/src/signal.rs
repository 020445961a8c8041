//! How a person or a supervisor tells this process to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears that somebody wants the configuration to be read again.
pub(crate) struct Reloads(Option<Signal>);

/// Hears that somebody wants the process to stop.
pub(crate) struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn stop_requested() {
    match Stops::hear() {
        Ok(mut stops) => stops.next().await,
        Err(_) => std::future::pending().await,
    }
}

/// Hears SIGHUP from now on.
pub(crate) fn reload_requested() -> Reloads {
    Reloads(signal(SignalKind::hangup()).ok())
}

// === impl Stops ===

impl Stops {
    /// Hears Ctrl-C and SIGTERM from now on: before, they end the process at once.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn hear() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

// === impl Reloads ===

impl Reloads {
    /// Waits for the next one; false when there will be none.
    pub(crate) async fn next(&mut self) -> bool {
        match &mut self.0 {
            Some(signal) => signal.recv().await.is_some(),
            None => false,
        }
    }
}
