//! Which system a connection means, and whether it is still the one the plan was sealed for.

use std::{collections::BTreeMap, env};

use dagwright_model::{code::Code, facts::Identity, id::Name, spec::Locator};
use url::Url;

use super::Environment;
use crate::error::{Error, Result};

/// What the environment variables of connections start with.
pub const CONNECTION_PREFIX: &str = "DAGWRIGHT_CONN_";

/// The environment variable of the key of `mask: hmac`.
pub const MASK_KEY: &str = "DAGWRIGHT_MASK_KEY";

/// PostgreSQL's port where a URL names none.
const POSTGRES_PORT: u16 = 5432;

// === impl Environment ===

impl Environment {
    /// Reads `DAGWRIGHT_CONN_<NAME>` (the name lower-cased) and `DAGWRIGHT_MASK_KEY` from the process's environment.
    ///
    /// Variables whose name or text is not usable are passed over: a spec that needs one ends with DW0601.
    #[must_use]
    pub fn from_process() -> Self {
        Self::from_variables(
            env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// The same from a list of variables.
    #[must_use]
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            if name == MASK_KEY && !value.is_empty() {
                environment.mask_key = Some(value.into_bytes());
            } else if let Some(name) = name.strip_prefix(CONNECTION_PREFIX)
                && let Ok(name) = Name::new(name.to_ascii_lowercase())
            {
                environment.connections.insert(name, value);
            }
        }
        environment
    }

    /// Returns the URL of a connection; a secret.
    ///
    /// # Errors
    /// DW0601 when there is none.
    pub fn url(&self, connection: &Name) -> Result<&str> {
        self.connections.get(connection).map(String::as_str).ok_or_else(|| {
            Error::new(
                Code::ConnectionMissing,
                connection.as_str(),
                format!("connection {connection:?} is not defined here", connection = connection.as_str()),
                format!("set {CONNECTION_PREFIX}{}", connection.as_str().to_ascii_uppercase()),
            )
        })
    }

    /// Returns which system a connection means.
    ///
    /// # Errors
    /// DW0601 when it is not defined, or its URL cannot be read.
    pub fn identity(&self, connection: &Name) -> Result<Identity> {
        identity_of_url(self.url(connection)?).ok_or_else(|| {
            Error::new(
                Code::ConnectionMissing,
                connection.as_str(),
                "the connection's URL cannot be read",
                "write it as postgresql://user:password@host:port/database, with special characters percent-encoded",
            )
        })
    }

    /// Checks that every sealed connection still means the system it was sealed for.
    ///
    /// # Errors
    /// DW0601 when one is not defined, DW0602 when one means another system.
    pub fn check_sealed(&self, sealed: &BTreeMap<Name, Identity>) -> Result<()> {
        for (name, wanted) in sealed {
            // Files have no connection: their identity is the URI's own.
            if !is_database(wanted) && !self.connections.contains_key(name) {
                continue;
            }
            let found = self.identity(name)?;
            if found != *wanted {
                return Err(Error::new(
                    Code::ConnectionOther,
                    name.as_str(),
                    format!("the plan was sealed for {}, here it is {}", describe(wanted), describe(&found)),
                    "point the connection at the sealed system, or plan again where it is meant to point elsewhere",
                ));
            }
        }
        Ok(())
    }
}

/// Returns the connection a locator names, if it names one.
#[must_use]
pub fn connection_of(locator: &Locator) -> Option<&Name> {
    match locator {
        Locator::Uri(_) => None,
        Locator::Table { connection, .. } | Locator::Query { connection, .. } => Some(connection),
    }
}

/// Returns which system a connection's URL means, if it can be read.
#[must_use]
pub fn identity_of_url(url: &str) -> Option<Identity> {
    let url = Url::parse(url).ok()?;
    let scheme = match url.scheme() {
        "postgres" | "postgresql" => "postgresql",
        other => other,
    };
    let text = |value: &str| (!value.is_empty()).then(|| percent_decoded(value));
    // A socket folder stands in the query: postgresql:///db?host=/run/postgresql.
    let query = |wanted: &str| url.query_pairs().find(|(key, _)| key == wanted).map(|(_, value)| value.into_owned());
    let mut identity = Identity {
        scheme: scheme.into(),
        host: url.host_str().and_then(text).or_else(|| query("host")),
        port: url.port().or_else(|| query("port").and_then(|port| port.parse().ok())),
        database: text(url.path().trim_start_matches('/')).or_else(|| query("dbname")),
    };
    if scheme == "postgresql" {
        identity.port.get_or_insert(POSTGRES_PORT);
        if identity.database.is_none() {
            // As libpq does: the database is named like the user.
            identity.database = text(url.username());
        }
    }
    Some(identity)
}

fn is_database(identity: &Identity) -> bool {
    identity.scheme == "postgresql"
}

fn percent_decoded(text: &str) -> String {
    // `query_pairs` decodes form encoding, where `+` means a blank; paths and hosts do not.
    let pair = format!("v={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn describe(identity: &Identity) -> String {
    let port = identity.port.map(|port| format!(":{port}")).unwrap_or_default();
    let database = identity.database.as_deref().unwrap_or_default();
    format!("{}://{}{port}/{database}", identity.scheme, identity.host.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dagwright_model::{code::Code, id::Name};

    use super::{Environment, describe, identity_of_url};

    #[track_caller]
    fn check(url: &str, wanted: &str) {
        assert_eq!(identity_of_url(url).map(|identity| describe(&identity)).as_deref(), Some(wanted));
    }

    #[test]
    fn an_identity_holds_no_credential() {
        check("postgres://u:p%40ss@db.example:5433/sales?sslmode=require", "postgresql://db.example:5433/sales");
        check("postgresql://u:p@db.example/sales", "postgresql://db.example:5432/sales");
        check("postgresql://u@db.example", "postgresql://db.example:5432/u");
        check("postgresql:///sales?host=/run/pg&port=6000", "postgresql:///run/pg:6000/sales");
        check("postgresql://u@%2Frun%2Fpg/my%20db", "postgresql:///run/pg:5432/my db");
    }

    #[test]
    fn another_system_is_refused_before_any_read() {
        let name = Name::new("warehouse").unwrap();
        let sealed = identity_of_url("postgresql://u:a@one/db").unwrap();
        let check = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            Environment::from_variables(variables)
                .check_sealed(&BTreeMap::from([(name.clone(), sealed.clone())]))
                .map_err(|error| error.code())
        };
        assert_eq!(check(&[("DAGWRIGHT_CONN_WAREHOUSE", "postgres://v:b@one:5432/db")]), Ok(()));
        assert_eq!(check(&[("DAGWRIGHT_CONN_WAREHOUSE", "postgres://u:a@two/db")]), Err(Code::ConnectionOther));
        assert_eq!(check(&[("DAGWRIGHT_CONN_OTHER", "postgres://u:a@one/db")]), Err(Code::ConnectionMissing));
        assert_eq!(check(&[("DAGWRIGHT_CONN_WAREHOUSE", "not a url")]), Err(Code::ConnectionMissing));
    }
}
