//! Connections: how many there are, and the end of those that hold one open without asking for anything.
//!
//! actix bounds the time that the first head of a connection takes, and how long a connection may be idle between
//! requests; but once a byte of a further head has come it waits for the rest as long as it takes. So whoever is not
//! answered, and has not asked for anything whole in both times together, is cut off here.

use std::{
    any::Any,
    collections::BTreeMap,
    net::{IpAddr, Shutdown},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    dev::Extensions,
    rt::net::TcpStream,
    web::Bytes,
};
use dagwright_model::{code::Code, record::Ingress};
use socket2::{SockRef, Socket};

use super::auth;
use crate::metrics;

/// By how much actix may be early: it looks at the clock that often.
const EARLY_MAX: Duration = Duration::from_millis(500);

/// How often it is looked for who is to be cut off, at most.
const SWEEP_MIN: Duration = Duration::from_millis(100);

/// How many connections there may be, and how long they may be quiet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) open_max: usize,
    /// How long a head may take to arrive.
    pub(super) timeout: Duration,
    /// How long a connection may be idle between requests.
    pub(super) keep_alive: Duration,
}

/// The open connections.
pub(super) struct Connections {
    bounds: Bounds,
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    is_full: AtomicBool,
}

/// A connection, as what is answered on it knows it; it is closed when this is dropped.
pub(super) struct Link {
    id: u64,
    connection: Arc<Connection>,
    all: Arc<Connections>,
}

/// A request that is being answered.
pub(super) struct Busy(Arc<Connection>);

/// A body that keeps its connection busy.
pub(super) struct Held {
    body: BoxBody,
    _busy: Option<Busy>,
}

struct Connection {
    peer: Option<IpAddr>,
    /// A second handle on the socket, to end it with; `None` where the system had none to spare.
    socket: Option<Socket>,
    state: Mutex<Activity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Activity {
    /// How many requests are being answered.
    busy: u32,
    /// Since when none is.
    quiet_since: Instant,
    /// Whether a whole head ever came.
    has_asked: bool,
    is_cut_off: bool,
}

// === impl Connections ===

impl Connections {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        let (open, next, is_full) = Default::default();
        Arc::new(Self { bounds, open, next, is_full })
    }

    /// Takes note of a connection that was made.
    pub(super) fn connected(self: &Arc<Self>, stream: &dyn Any, data: &mut Extensions) {
        let tcp = stream.downcast_ref::<TcpStream>();
        let tcp = tcp.or_else(|| Some(stream.downcast_ref::<TlsStream<TcpStream>>()?.get_ref().0));
        let peer = tcp.and_then(|tcp| Some(tcp.peer_addr().ok()?.ip().to_canonical()));
        let socket = tcp.and_then(|tcp| SockRef::from(tcp).try_clone().ok());
        data.insert(self.link(peer, socket, Instant::now()));
    }

    fn link(self: &Arc<Self>, peer: Option<IpAddr>, socket: Option<Socket>, now: Instant) -> Link {
        let state = Activity { busy: 0, quiet_since: now, has_asked: false, is_cut_off: false };
        let connection = Arc::new(Connection { peer, socket, state: Mutex::new(state) });
        let id = self.next.fetch_add(1, Relaxed);
        let mut open = self.lock();
        open.insert(id, connection.clone());
        if open.len() >= self.bounds.open_max && !self.is_full.swap(true, Relaxed) {
            tracing::warn!(connections = open.len(), "as many connections are open as may be: further ones wait");
        }
        drop(open);
        Link { id, connection, all: self.clone() }
    }

    /// Returns how many there are.
    pub(super) fn open(&self) -> usize {
        self.lock().len()
    }

    /// Cuts off who is quiet for too long, for as long as there is a server.
    pub(super) async fn sweep_on(self: Arc<Self>) {
        let all = Arc::downgrade(&self);
        let mut ticks = tokio::time::interval((self.bounds.timeout / 4).max(SWEEP_MIN));
        drop(self);
        loop {
            ticks.tick().await;
            let Some(all) = all.upgrade() else { return };
            all.sweep(Instant::now());
        }
    }

    fn sweep(&self, now: Instant) {
        let quiet_max = self.bounds.keep_alive + self.bounds.timeout;
        let open: Vec<_> = self.lock().values().cloned().collect();
        for connection in open {
            let mut state = connection.lock();
            let is_due = state.has_asked && state.busy == 0 && !state.is_cut_off;
            if is_due && now.saturating_duration_since(state.quiet_since) > quiet_max {
                state.is_cut_off = true;
                drop(state);
                slow(connection.peer);
                if let Some(socket) = &connection.socket {
                    // What was answered still leaves; it fails where the peer has gone.
                    let _ = socket.shutdown(Shutdown::Read);
                }
            }
        }
    }

    fn closed(&self, id: u64, now: Instant) {
        let mut open = self.lock();
        let closed = open.remove(&id);
        if open.len() < self.bounds.open_max {
            self.is_full.store(false, Relaxed);
        }
        drop(open);
        let Some(connection) = closed else { return };
        let Activity { has_asked, quiet_since, .. } = *connection.lock();
        let early = EARLY_MAX.min(self.bounds.timeout / 2);
        if !has_asked && now.saturating_duration_since(quiet_since) + early >= self.bounds.timeout {
            slow(connection.peer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Connection, Link, Busy ===

impl Connection {
    fn lock(&self) -> MutexGuard<'_, Activity> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Takes note of a whole head, whose request is answered until this is dropped.
    pub(super) fn asked(&self) -> Busy {
        let mut state = self.connection.lock();
        (state.busy, state.has_asked) = (state.busy + 1, true);
        drop(state);
        Busy(self.connection.clone())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.all.closed(self.id, Instant::now());
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.busy, state.quiet_since) = (state.busy.saturating_sub(1), Instant::now());
    }
}

// === impl Held ===

impl Held {
    pub(super) fn new(body: impl MessageBody + 'static, busy: Option<Busy>) -> Self {
        Self { body: body.boxed(), _busy: busy }
    }
}

impl MessageBody for Held {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// Writes down that somebody took too long to ask for something.
fn slow(peer: Option<IpAddr>) {
    metrics::refused(Ingress::Http, &Code::RequestSlow.to_string());
    auth::cut_off(peer, Code::RequestSlow);
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream},
        sync::Arc,
        time::{Duration, Instant},
    };

    use socket2::Socket;

    use super::{Bounds, Connections, Link};

    const S: Duration = Duration::from_secs(1);

    fn connections() -> Arc<Connections> {
        Connections::new(Bounds { open_max: 2, timeout: S, keep_alive: 2 * S })
    }

    fn is_cut_off(link: &Link) -> bool {
        link.connection.lock().is_cut_off
    }

    #[test]
    fn who_asks_for_nothing_further_is_cut_off_and_nobody_else() {
        let all = connections();
        let now = Instant::now();
        let (quiet, at_work, new) = (all.link(None, None, now), all.link(None, None, now), all.link(None, None, now));
        drop(quiet.asked());
        let busy = at_work.asked();
        // Those that never asked are actix's to end.
        for (after, wanted) in [(S, false), (2 * S, false), (4 * S, true)] {
            all.sweep(Instant::now() + after);
            assert_eq!(
                [is_cut_off(&quiet), is_cut_off(&at_work), is_cut_off(&new)],
                [wanted, false, false],
                "{after:?}"
            );
        }
        drop(busy);
        all.sweep(Instant::now() + 4 * S);
        assert!(is_cut_off(&at_work));
    }

    #[test]
    fn who_is_cut_off_hears_so() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let _peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (mut stream, _) = listener.accept().expect("a connection");
        let all = connections();
        let socket = Socket::from(stream.try_clone().expect("a handle"));
        let link = all.link(None, Some(socket), Instant::now());
        drop(link.asked());
        all.sweep(Instant::now() + 4 * S);
        // The server reads the end, though the peer has not closed.
        assert_eq!(stream.read(&mut [0; 8]).expect("an end"), 0);
    }

    #[test]
    fn connections_are_counted_until_they_close() {
        let all = connections();
        let links: Vec<_> = (0..2).map(|_| all.link(None, None, Instant::now())).collect();
        assert_eq!(all.open(), 2);
        assert!(all.is_full.load(super::Relaxed));
        drop(links);
        assert_eq!(all.open(), 0);
        assert!(!all.is_full.load(super::Relaxed));
    }
}
