//! The HTTP API.
//!
//! | module | what it answers |
//! |---|---|
//! | `requests` | takes requests on, shows them, stops them |
//! | `runs` | runs with their tasks and counts |
//! | `pipelines` | pipelines and the plans that were sealed for them |
//! | `plans` | approves and declines plans |
//! | `events` | what happens, as server-sent events |
//! | `feedback` | takes in what Airflow tells of runs |
//! | `openapi` | the description of all this |
//! | `health` | whether the process lives, and whether it takes requests on |
//! | `metrics` | what is measured |
//!
//! | module | what every answer goes through |
//! |---|---|
//! | `auth` | who calls, and what they may do |
//! | `connections` | how many connections there are, and how long they may be quiet |
//! | `limit` | how much one caller may send |
//! | `body` | how long and how large a body may be |
//! | `page` | lists in parts |
//! | `fault` | errors as problem details |
//! | `tls` | the certificate |
//!
//! Every bound is set here and none is left to a default. Only HTTP/1.1 is spoken: the time limits that the server keeps
//! are limits of its connections, and the streams of an HTTP/2 connection would escape them.

pub(crate) mod auth;
mod body;
mod connections;
pub(crate) mod events;
pub(crate) mod fault;
mod feedback;
pub(crate) mod health;
mod limit;
mod metrics;
mod openapi;
mod page;
mod pipelines;
mod plans;
mod requests;
mod runs;
#[cfg(test)]
mod tests;
pub(crate) mod tls;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, HttpResponse, HttpServer,
    dev::Server,
    http::header,
    middleware::from_fn,
    web::{self, PayloadConfig, QueryConfig, ServiceConfig},
};
use anyhow::{Context, Result};
use dagwright_engine::airflow::told::posted::EVENT_BYTES_MAX;
use dagwright_store::Register;
use prometheus::Registry;

use self::{
    auth::Gate,
    connections::{Bounds, Connections},
    fault::Fault,
    health::Readiness,
    tls::Certificate,
};
use crate::{api, config::Config, serve::State};

/// How long answers under way may take when the service ends; streams of events end at once.
const CLOSE_S: u64 = 10;

/// Declares routes of the API: each path with its methods, where any other method is told which there are.
macro_rules! routes {
    ($routes:ident, $all:ident: $($path:literal { $($method:ident $handler:path),+ })+) => {
        /// Every path with a method that it takes.
        #[cfg(test)]
        const $all: &[(&str, &str)] = &[$($(($path, stringify!($method))),+),+];

        /// Declares them below a path; what is sent to them may be as long as this.
        fn $routes(config: &mut ServiceConfig, root: &str, bytes_max: usize) {
            $(
                let resource = web::resource(format!("{root}{}", $path)).app_data(PayloadConfig::new(bytes_max));
                let resource = resource$(.route(web::$method().to($handler)))+;
                let allowed = [$(stringify!($method).to_ascii_uppercase()),+].join(", ");
                config.service(resource.default_service(web::to(move || other_method(allowed.clone()))));
            )+
        }
    };
}

// Whoever calls these says who they are by something else than a token.
routes! { signed_routes, SIGNED_ROUTES:
    "/feedback" { post feedback::take }
}

routes! { routes, ROUTES:
    "/requests" { get requests::list, post requests::submit }
    "/requests/{id}" { get requests::show }
    "/requests/{id}/transcript" { get requests::transcript }
    "/requests/{id}/explain" { get requests::explain }
    "/requests/{id}/cancel" { post requests::cancel }
    "/pipelines" { get pipelines::list }
    "/pipelines/{name}" { get pipelines::show }
    "/pipelines/{name}/plans" { get pipelines::plans }
    "/pipelines/{name}/plans/{hash}" { get pipelines::plan }
    "/runs" { get runs::list }
    "/runs/{id}" { get runs::show }
    "/runs/{id}/cancel" { post runs::cancel }
    "/plans/{hash}/approve" { post plans::approve }
    "/plans/{hash}/decline" { post plans::decline }
    "/events" { get events::stream }
}

/// Answers the whole API; returns the address too, whose port may have been left to the system.
///
/// # Errors
/// When the address cannot be had, or the certificate not be used.
pub(crate) fn start(state: Arc<State>) -> Result<(Server, SocketAddr)> {
    let (config, certificate) = (state.config.clone(), state.certificate.clone());
    let state = web::Data::from(state);
    listen(&config, certificate, move |config| service(config, state.clone()))
}

/// Answers what every process does: whether it lives and is ready, and what it measures.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_vitals(
    config: &Config,
    gate: Arc<Gate>,
    certificate: Option<Arc<Certificate>>,
    metrics: Registry,
    readiness: Readiness,
) -> Result<(Server, SocketAddr)> {
    listen(config, certificate, move |config| vitals(config, gate.clone(), metrics.clone(), readiness.clone()))
}

fn listen(
    config: &Config,
    certificate: Option<Arc<Certificate>>,
    answers: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> Result<(Server, SocketAddr)> {
    let http = &config.http;
    let timeout = Duration::from_millis(http.timeout.0);
    let workers = http.workers.get();
    let listener = TcpListener::bind(http.listen).with_context(|| format!("could not listen on {}", http.listen))?;
    // Accepted connections inherit it: who does not take what is sent is disconnected, and nothing is kept for them.
    socket2::SockRef::from(&listener).set_tcp_user_timeout(Some(timeout)).context("could not limit connections")?;
    let address = listener.local_addr().context("could not listen")?;
    let tls = certificate.map(tls::server).transpose()?;
    let connections_max = (http.connections / workers).max(1);
    let keep_alive = Duration::from_millis(http.keep_alive.0);
    let connections = Connections::new(Bounds { open_max: connections_max * workers, timeout, keep_alive });
    let counted = Arc::downgrade(&connections);
    crate::metrics::observe_connections(
        move || counted.upgrade().map_or(0, |all| all.open()),
        connections_max * workers,
    );
    tokio::spawn(connections.clone().sweep_on());
    let server = HttpServer::new(move || {
        let answers = answers.clone();
        App::new()
            .configure(move |config| answers(config))
            .wrap(from_fn(fault::explain))
            .wrap(from_fn(metrics::measure))
    })
    .on_connect(move |stream, data| connections.connected(stream, data))
    .workers(workers)
    .max_connections(connections_max)
    .keep_alive(keep_alive)
    .client_request_timeout(timeout)
    .client_disconnect_timeout(timeout)
    .tls_handshake_timeout(timeout)
    .shutdown_timeout(CLOSE_S)
    .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls),
        None => server.listen(listener),
    };
    Ok((server.context("could not listen")?.run(), address))
}

/// Declares everything that is answered.
fn service(config: &mut ServiceConfig, state: web::Data<State>) {
    let body_max = usize::try_from(state.config.http.body_max.0).unwrap_or(usize::MAX);
    let readiness = Readiness::Service { service: state.service.clone(), kafka: state.kafka.clone() };
    vitals(config, state.gate.clone(), state.metrics.clone(), readiness);
    config
        .app_data(state)
        .app_data(QueryConfig::default().error_handler(|error, _| {
            Fault::bad(format!("the query is not valid: {error}"), "/api/v1/openapi.json lists the parameters").into()
        }))
        .route(&format!("{}/openapi.json", api::ROOT), web::get().to(openapi::show))
        // Before the scope, which takes whatever begins as its path does.
        .configure(|config| signed_routes(config, api::ROOT, EVENT_BYTES_MAX))
        .service(
            web::scope(api::ROOT).wrap(from_fn(auth::guard)).configure(move |config| routes(config, "", body_max)),
        );
}

/// Declares what every process answers.
fn vitals(config: &mut ServiceConfig, gate: Arc<Gate>, metrics: Registry, readiness: Readiness) {
    config
        .app_data(web::Data::from(gate))
        .app_data(web::Data::new(metrics))
        .app_data(web::Data::new(readiness))
        .configure(health::routes)
        .configure(metrics::routes);
}

async fn other_method(allowed: String) -> HttpResponse {
    HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, allowed)).finish()
}

/// Reads the ledger where blocking is allowed.
async fn read<T: Send + 'static>(
    state: &web::Data<State>,
    work: impl FnOnce(&dyn Register) -> Result<T, dagwright_store::Error> + Send + 'static,
) -> Result<T, Fault> {
    let register = state.register.clone();
    let read = web::block(move || work(&*register)).await;
    // Nobody else can have cancelled it: it panicked.
    read.map_err(|_| Fault::internal(dagwright_model::code::Code::Internal))?.map_err(Fault::from)
}

/// Waits until something that the ledger tells of has come about; false when that takes too long.
async fn until(
    state: &web::Data<State>,
    patience: Duration,
    come_about: impl Fn(&dyn Register) -> Result<bool, dagwright_store::Error> + Clone + Send + 'static,
) -> Result<bool, Fault> {
    let mut news = state.news.clone();
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        news.borrow_and_update();
        if read(state, come_about.clone()).await? {
            return Ok(true);
        }
        match tokio::time::timeout_at(deadline, news.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Ok(false),
        }
    }
}
