//! The HTTP API.
//!
//! | module | what it answers |
//! |---|---|
//! | `health` | whether the process lives, and whether it takes requests on |
//! | `metrics` | what is measured |

mod health;
mod metrics;

use std::{io, sync::Arc};

use actix_web::{App, HttpServer, dev::Server, middleware::from_fn, web};

use crate::serve::State;

/// Starts to listen.
///
/// # Errors
/// When the address cannot be had.
pub(crate) fn start(state: Arc<State>) -> io::Result<Server> {
    let listen = state.config.http.listen;
    let workers = state.config.http.workers.get();
    let state = web::Data::from(state);
    let server = HttpServer::new(move || {
        let app = App::new().app_data(state.clone()).configure(health::routes).configure(metrics::routes);
        app.wrap(from_fn(metrics::measure))
    });
    Ok(server.workers(workers).disable_signals().bind(listen)?.run())
}
