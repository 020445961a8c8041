//! Who calls, and what they may do.
//!
//! With tokens, a caller is whoever holds one: `Authorization: Bearer …`, compared by hash in constant time. Without any,
//! only loopback listens, and everybody there may do everything; then a page in a browser on that machine must not be
//! able to call either, neither across sites nor by a name that it has made to point here.

use std::{
    env,
    marker::PhantomData,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use actix_web::{
    Error, FromRequest, HttpMessage, HttpRequest, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{StatusCode, header},
    middleware::Next,
    web,
};
use dagwright_model::{code::Code, id::Name, record::Ingress};
use futures::future::{Ready, ready};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use url::Url;

use super::{fault::Fault, limit::Limiter};
use crate::{
    admission::Requester,
    audit::{Entry, Outcome},
    config::{Http, Scope, Token, TokenFault},
};

/// Knows the tokens, and how much each caller may send.
pub(crate) struct Gate {
    keys: RwLock<Arc<Keys>>,
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The token's name; `None` where nobody has to say who they are.
    pub(crate) name: Option<String>,
    scopes: Vec<Scope>,
    namespaces: Option<Vec<Name>>,
    /// From where, for the audit log.
    pub(crate) peer: Option<IpAddr>,
}

/// A caller who may do what `S` says.
pub(crate) struct May<S> {
    caller: Arc<Caller>,
    scope: PhantomData<S>,
}

/// Something that a caller may be allowed.
pub(crate) trait Allowance {
    const SCOPE: Scope;
}

/// Look at things.
pub(crate) struct Read;
/// Send requests.
pub(crate) struct Submit;
/// Cancel and approve.
pub(crate) struct Operate;

/// Says why tokens cannot be used: everything that is wrong with any of them.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|fault| format!("{}: {}", fault.key, fault.message)).collect::<Vec<_>>().join("; "))]
pub(crate) struct Unusable(Vec<TokenFault>);

/// What callers are known by.
struct Keys {
    tokens: Vec<Key>,
    limiter: Limiter,
}

struct Key {
    digest: [u8; 32],
    name: String,
    scopes: Vec<Scope>,
    namespaces: Option<Vec<Name>>,
}

impl Allowance for Read {
    const SCOPE: Scope = Scope::Read;
}

impl Allowance for Submit {
    const SCOPE: Scope = Scope::Submit;
}

impl Allowance for Operate {
    const SCOPE: Scope = Scope::Operate;
}

// === impl Gate ===

impl Gate {
    /// Reads the tokens from the environment and their files.
    ///
    /// # Errors
    /// When any of them is missing, short, or another's; all that are.
    pub(crate) fn new(http: &Http) -> Result<Self, Unusable> {
        Self::with(http, |variable| env::var(variable).ok())
    }

    /// Reads the tokens from variables and their files.
    pub(super) fn with(http: &Http, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Unusable> {
        Ok(Self { keys: RwLock::new(Arc::new(Keys::new(http, variable)?)) })
    }

    /// Reads the tokens and the share of each caller again.
    ///
    /// # Errors
    /// As [`Gate::new`]; then nothing changes.
    pub(crate) fn change(&self, http: &Http) -> Result<(), Unusable> {
        let keys = Arc::new(Keys::new(http, |variable| env::var(variable).ok())?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Writes down who was refused where no token is asked for, by another proof of who they are; one that has none has
    /// the share of whoever tries tokens. Returns what to answer.
    pub(super) fn refuse(&self, caller: &str, request: &HttpRequest, fault: Fault) -> Fault {
        let peer = request.peer_addr().map(|address| address.ip().to_canonical());
        let fault = self.keys().charge(peer, fault);
        refused(caller, peer, request.method().as_str(), request.path(), &fault);
        fault
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

// === impl Keys ===

impl Keys {
    fn new(http: &Http, read: impl Fn(&str) -> Option<String>) -> Result<Self, Unusable> {
        let values = http.token_values(read).map_err(Unusable)?;
        for file in http.token_files_open_to_all() {
            tracing::warn!(file = %file.display(), "every user of this machine can read the file of a token");
        }
        let key = |(name, token): (&String, &Token)| {
            let digest = digest(values.get(name)?);
            let (scopes, namespaces) = (token.scopes.clone(), token.namespaces.clone());
            Some(Key { digest, name: name.clone(), scopes, namespaces })
        };
        let tokens = http.tokens.iter().filter_map(key).collect();
        Ok(Self { tokens, limiter: Limiter::new(http.requests_per_second) })
    }

    /// Takes it out of a caller's share when nobody knows who they are; what is too much is refused for that instead.
    fn charge(&self, peer: Option<IpAddr>, fault: Fault) -> Fault {
        if fault.status_code() == StatusCode::UNAUTHORIZED {
            self.limiter.check(None, peer).err().unwrap_or(fault)
        } else {
            fault
        }
    }

    /// Tells who calls.
    fn identify(&self, request: &ServiceRequest) -> Result<Caller, Fault> {
        let peer = request.peer_addr().map(|address| address.ip().to_canonical());
        if self.tokens.is_empty() {
            refuse_browsers(request)?;
            let scopes = vec![Scope::Read, Scope::Submit, Scope::Operate];
            return Ok(Caller { name: None, scopes, namespaces: None, peer });
        }
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(given) = given.and_then(bearer) else {
            return Err(unauthenticated("this service asks who calls", "Bearer"));
        };
        let given = digest(given);
        // All of them, so that the time tells nothing of which.
        let found = self.tokens.iter().fold(
            None,
            |found, key| {
                if bool::from(key.digest.ct_eq(&given)) { Some(key) } else { found }
            },
        );
        let Some(key) = found else {
            return Err(unauthenticated("nobody has this token", "Bearer error=\"invalid_token\""));
        };
        Ok(Caller {
            name: Some(key.name.clone()),
            scopes: key.scopes.clone(),
            namespaces: key.namespaces.clone(),
            peer,
        })
    }
}

// === impl Caller ===

impl Caller {
    /// Tells whether the caller may see a pipeline (by `dag_id`).
    pub(crate) fn sees(&self, pipeline: &str) -> bool {
        let Some(allowed) = &self.namespaces else { return true };
        let namespace = pipeline.split_once('.').map(|(namespace, _)| namespace);
        namespace.is_some_and(|namespace| allowed.iter().any(|name| name.as_str() == namespace))
    }

    /// Returns the caller as admission knows requesters.
    pub(crate) fn requester(&self) -> Requester {
        Requester {
            ingress: Ingress::Http,
            name: self.name.clone(),
            namespaces: self.namespaces.clone(),
            may_submit: self.scopes.contains(&Scope::Submit),
            may_operate: self.scopes.contains(&Scope::Operate),
        }
    }

    /// Begins a line of the audit log.
    pub(crate) fn asks(&self, action: &str) -> Entry {
        Entry { caller: self.shown().into(), peer: self.peer, action: action.into(), ..Entry::default() }
    }

    /// Returns the name for logs and for the source of what has no id of its own.
    pub(crate) fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or("anonymous")
    }

    fn check(&self, scope: Scope) -> Result<(), Fault> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let detail = format!("this needs the scope {scope}");
        let hint = format!("use a token with the scope {scope}");
        Err(Fault::new(StatusCode::FORBIDDEN, Code::ScopeMissing, detail, hint)
            .with(header::WWW_AUTHENTICATE, format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"")))
    }
}

// === impl May ===

impl<S> std::ops::Deref for May<S> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl<S: Allowance> FromRequest for May<S> {
    type Error = Fault;
    type Future = Ready<Result<Self, Fault>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let known = request.extensions().get::<Arc<Caller>>().cloned();
        ready(match known {
            Some(caller) => match caller.check(S::SCOPE) {
                Ok(()) => Ok(Self { caller, scope: PhantomData }),
                Err(fault) => {
                    refused(caller.shown(), caller.peer, request.method().as_str(), request.path(), &fault);
                    Err(fault)
                }
            },
            // A route that nobody guards is a mistake, and open to nobody.
            None => Err(Fault::internal(Code::Internal)),
        })
    }
}

/// Lets nobody pass who does not say who they are, or who sends more than their share.
pub(super) async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(gate) = request.app_data::<web::Data<Gate>>().cloned() else {
        return Ok(request.into_response(Fault::internal(Code::Internal).error_response()));
    };
    let keys = gate.keys();
    let peer = request.peer_addr().map(|address| address.ip().to_canonical());
    let passed = keys.identify(&request).and_then(|caller| {
        keys.limiter.check(caller.name.as_deref(), peer)?;
        Ok(caller)
    });
    let caller = match passed {
        Ok(caller) => caller,
        Err(fault) => {
            // Whoever tries tokens has a share too.
            let fault = keys.charge(peer, fault);
            refused("unknown", peer, request.method().as_str(), request.path(), &fault);
            return Ok(request.into_response(fault.error_response()));
        }
    };
    request.extensions_mut().insert(Arc::new(caller));
    next.call(request).await.map(ServiceResponse::map_into_boxed_body)
}

fn refused(caller: &str, peer: Option<IpAddr>, method: &str, path: &str, fault: &Fault) {
    let action = format!("{method} {path}");
    Entry { caller: caller.into(), peer, action, ..Entry::default() }.write(Outcome::Refused(fault.code()));
}

/// Writes down whose connection was ended before it asked for anything.
pub(super) fn cut_off(peer: Option<IpAddr>, code: Code) {
    let action = "connect".into();
    Entry { caller: "unknown".into(), peer, action, ..Entry::default() }.write(Outcome::Refused(&code.to_string()));
}

/// Refuses what a browser was led to send: a request of another site, or one to a name that is not this machine's.
fn refuse_browsers(request: &ServiceRequest) -> Result<(), Fault> {
    let not_allowed = |detail: &str| {
        let hint = "use curl or dagwright on this machine; or set [http.tokens.<name>] and send a token";
        Err(Fault::new(StatusCode::FORBIDDEN, Code::NotAllowed, detail, hint))
    };
    let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST).or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    if !host.is_some_and(|host| is_loopback(&format!("http://{host}"))) {
        return not_allowed("without tokens only localhost is answered, and the header Host names another");
    }
    if text(header::ORIGIN).is_some_and(|origin| !is_loopback(origin)) {
        return not_allowed("without tokens pages of other sites may not call");
    }
    let site = text(header::HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return not_allowed("without tokens pages of other sites may not call");
    }
    Ok(())
}

fn is_loopback(origin: &str) -> bool {
    let Ok(url) = Url::parse(origin) else { return false };
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn unauthenticated(detail: &str, challenge: &str) -> Fault {
    let hint = "send Authorization: Bearer with a token of http.tokens; the commands take it from DAGWRIGHT_TOKEN";
    Fault::new(StatusCode::UNAUTHORIZED, Code::Unauthenticated, detail, hint).with(header::WWW_AUTHENTICATE, challenge)
}
