//! A receiver of webhooks: keeps every post, and answers as it is told to.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use serde_json::Value;

/// How long a test waits for posts.
const PATIENCE: Duration = Duration::from_secs(120);

/// A request that was posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// The path.
    pub path: String,
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
    /// The status it was answered with.
    pub answered: u16,
}

type Kept = (Mutex<Vec<Post>>, Condvar);

/// Says with which status, and further headers, a post is answered; sees those before it.
type Answer = dyn Fn(&Post, &[Post]) -> (u16, &'static str);

/// Takes posts until the test process ends.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    kept: Arc<Kept>,
}

// === impl Receiver ===

impl Receiver {
    /// Returns an address where nobody listens yet.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn nowhere() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
    }

    /// Listens at an address. `answer` sees a post, and the posts before it, and says the status and further headers.
    ///
    /// # Panics
    /// When the address is taken.
    #[must_use]
    pub fn start(
        address: SocketAddr,
        answer: impl Fn(&Post, &[Post]) -> (u16, &'static str) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("the port is free");
        let kept = Arc::<Kept>::default();
        let (keeper, answer) = (kept.clone(), Arc::new(answer));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (keeper, answer) = (keeper.clone(), answer.clone());
                thread::spawn(move || serve(connection, &keeper, &*answer));
            }
        });
        Self { address, kept }
    }

    /// Waits until the posts satisfy a condition, and returns them.
    ///
    /// # Panics
    /// When they do not for long.
    #[track_caller]
    pub fn until(&self, wanted: impl Fn(&[Post]) -> bool) -> Vec<Post> {
        let (_, told) = &*self.kept;
        let waited = told.wait_timeout_while(self.lock(), PATIENCE, |kept| !wanted(kept)).expect("no panic");
        assert!(!waited.1.timed_out(), "these came, and not what was waited for: {:#?}", *waited.0);
        waited.0.clone()
    }

    /// Returns the posts so far.
    #[must_use]
    pub fn posts(&self) -> Vec<Post> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Post>> {
        self.kept.0.lock().expect("no panic")
    }
}

// === impl Post ===

impl Post {
    /// Returns the event's id.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// Tells whether it was taken.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.answered < 300
    }

    /// Returns the body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

fn serve(connection: TcpStream, kept: &Kept, answer: &Answer) {
    let mut reader = BufReader::new(connection);
    while let Some(mut post) = read(&mut reader) {
        let extra = {
            let mut now = kept.0.lock().expect("no panic");
            let (status, extra) = answer(&post, &now);
            post.answered = status;
            now.push(post.clone());
            extra
        };
        kept.1.notify_all();
        let said = format!("HTTP/1.1 {} -\r\ncontent-length: 0\r\n{extra}\r\n", post.answered);
        if reader.get_mut().write_all(said.as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads a post; `None` at the end of the connection, also where the sender was killed.
fn read(reader: &mut impl BufRead) -> Option<Post> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        assert!(headers.insert(name.to_ascii_lowercase(), value.to_owned()).is_none(), "{name} is there twice");
    }
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().expect("a length"))];
    reader.read_exact(&mut body).ok()?;
    Some(Post { path, headers, body: String::from_utf8(body).expect("text"), answered: 0 })
}
