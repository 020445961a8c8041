//! What makes a task stop: signals, and the end of its standard input.

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Cancels on SIGINT, SIGTERM and SIGHUP.
pub(super) fn on_signals(cancel: &CancellationToken) {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        match signal(kind) {
            Ok(mut signals) => {
                let cancel = cancel.clone();
                tokio::spawn(async move {
                    if signals.recv().await.is_some() {
                        cancel.cancel();
                    }
                });
            }
            Err(error) => tracing::warn!(%error, "a signal cannot be watched"),
        }
    }
}

/// Cancels when an input ends; what it still holds is read and passed over.
pub(super) fn on_end_of(mut input: impl AsyncRead + Unpin + Send + 'static, cancel: &CancellationToken) {
    let cancel = cancel.clone();
    tokio::spawn(async move {
        let mut passed_over = [0; 1024];
        while matches!(input.read(&mut passed_over).await, Ok(1..)) {}
        cancel.cancel();
    });
}
