//! The line between a daemon and a server that it calls over HTTP: cuts calls off, or answers in the server's place.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

/// How long a test waits for a fault to strike.
const PATIENCE: Duration = Duration::from_secs(240);

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server never hears of it.
    Unheard,
    /// The server does it, and its answer is lost.
    Unanswered,
    /// The server never hears of it, and something before it answers with this status.
    Status(u16),
}

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its method.
    pub method: String,
    /// Its path, with its query.
    pub path: String,
}

type Wanted = dyn Fn(&Call) -> bool + Send;

/// A line to one server, until the test process ends.
pub struct Line {
    /// Where the server's callers find it.
    pub address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    /// The faults that are to strike, each once, the first that fits first.
    faults: VecDeque<(Box<Wanted>, Fault)>,
    /// How many calls are being struck.
    striking: usize,
    calls: Vec<Call>,
}

// === impl Line ===

impl Line {
    /// Listens before a server.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("a port");
        let state = Arc::<(Mutex<State>, Condvar)>::default();
        let shared = state.clone();
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let state = shared.clone();
                // A caller that goes, or a server that is away, ends the call; that is what the line is for.
                thread::spawn(move || drop(serve(caller, server, &state)));
            }
        });
        Self { address, state }
    }

    /// Lets a fault strike the next call that is wanted, once.
    pub fn strike(&self, fault: Fault, wanted: impl Fn(&Call) -> bool + Send + 'static) {
        self.lock().faults.push_back((Box::new(wanted), fault));
    }

    /// Waits until every fault has struck, and what the server was to do is done.
    ///
    /// # Panics
    /// When they do not for long.
    #[track_caller]
    pub fn until_struck(&self) {
        assert!(self.is_struck_within(PATIENCE), "no such call in {:#?}", self.calls());
    }

    /// Waits until every fault has struck, or for so long; then forgets those that did not. Returns whether all did.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn is_struck_within(&self, longest: Duration) -> bool {
        let (_, changed) = &*self.state;
        let waits = |state: &mut State| !state.faults.is_empty() || state.striking > 0;
        let (mut state, waited) = changed.wait_timeout_while(self.lock(), longest, waits).expect("no panic");
        state.faults.clear();
        !waited.timed_out()
    }

    /// Returns the calls so far, and forgets them.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().expect("no panic")
    }
}

// === impl Call ===

impl Call {
    /// Tells whether it has this method, and a path with this in it.
    #[must_use]
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

/// Passes one call on: connections are not kept, as each call may be struck.
fn serve(caller: TcpStream, server: SocketAddr, state: &(Mutex<State>, Condvar)) -> std::io::Result<()> {
    let mut caller = BufReader::new(caller);
    let Some((call, request)) = read(&mut caller)? else { return Ok(()) };
    let fault = {
        let mut now = state.0.lock().expect("no panic");
        let at = now.faults.iter().position(|(wanted, _)| wanted(&call));
        now.calls.push(call);
        let fault = at.and_then(|at| now.faults.remove(at)).map(|(_, fault)| fault);
        now.striking += usize::from(fault.is_some());
        fault
    };
    let passed = pass(caller.into_inner(), server, &request, fault);
    state.0.lock().expect("no panic").striking -= usize::from(fault.is_some());
    state.1.notify_all();
    passed
}

/// Sends a call to the server, and the answer back, as far as the fault lets it.
fn pass(mut caller: TcpStream, server: SocketAddr, request: &[u8], fault: Option<Fault>) -> std::io::Result<()> {
    match fault {
        Some(Fault::Unheard) => {}
        Some(Fault::Status(status)) => {
            write!(caller, "HTTP/1.1 {status} -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
        }
        Some(Fault::Unanswered) => {
            let mut server = TcpStream::connect(server)?;
            server.write_all(request)?;
            std::io::copy(&mut server, &mut std::io::sink())?;
        }
        None => {
            let mut server = TcpStream::connect(server)?;
            server.write_all(request)?;
            std::io::copy(&mut server, &mut caller)?;
        }
    }
    caller.shutdown(Shutdown::Both)
}

/// Reads a call whole, and what is to be sent for it; `None` where the caller sent none.
fn read(caller: &mut impl BufRead) -> std::io::Result<Option<(Call, Vec<u8>)>> {
    let mut line = String::new();
    if caller.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let call = Call { method: words.next().unwrap_or_default(), path: words.next().unwrap_or_default() };
    let (mut request, mut length) = (line.into_bytes(), 0);
    loop {
        let mut line = String::new();
        if caller.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        match name.as_str() {
            "content-length" => {
                length = line.split(':').nth(1).and_then(|text| text.trim().parse().ok()).expect("a length");
            }
            "connection" => continue,
            _ => {}
        }
        if line.trim_end().is_empty() {
            break;
        }
        request.extend(line.into_bytes());
    }
    request.extend(b"connection: close\r\n\r\n");
    let mut body = vec![0; length];
    caller.read_exact(&mut body)?;
    request.extend(body);
    Ok(Some((call, request)))
}
