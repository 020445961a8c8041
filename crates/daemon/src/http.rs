//! The HTTP API.
//!
//! | module | what it answers |
//! |---|---|
//! | `health` | whether the process lives, and whether it takes requests on |

mod health;

use std::{io, sync::Arc};

use actix_web::{App, HttpServer, dev::Server, web};

use crate::serve::State;

/// Starts to listen.
///
/// # Errors
/// When the address cannot be had.
pub(crate) fn start(state: Arc<State>) -> io::Result<Server> {
    let listen = state.config.http.listen;
    let state = web::Data::from(state);
    let server = HttpServer::new(move || App::new().app_data(state.clone()).configure(health::routes));
    Ok(server.disable_signals().bind(listen)?.run())
}
