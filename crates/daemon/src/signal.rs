//! How a person or a supervisor tells this process to stop.

use tokio::signal::{
    ctrl_c,
    unix::{Signal, SignalKind, signal},
};

/// Hears that somebody wants the configuration to be read again.
pub(crate) struct Reloads(Option<Signal>);

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn stop_requested() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Hears SIGHUP from now on.
pub(crate) fn reload_requested() -> Reloads {
    Reloads(signal(SignalKind::hangup()).ok())
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
