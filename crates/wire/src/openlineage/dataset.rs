//! What sources and sinks are called, after OpenLineage's naming conventions.
//!
//! | what | namespace | name |
//! |---|---|---|
//! | a table | `postgres://host:port` | `database.schema.table` |
//! | a query | `postgres://host:port` | `database/pipeline/source`: it has no name that others know |
//! | a local file | `file` | the absolute path |
//! | an object | `s3://bucket`, `gs://bucket`, `az://container`, `https://host` | the key |
//!
//! A pattern, and a URI with the interval in it, is one dataset, called as it is written: the runs of a pipeline read and
//! write the same one.

use std::collections::BTreeMap;

use dagwright_model::{facts::Identity, id::Name, spec::Locator};
use percent_encoding::percent_decode_str;

/// The schema of a table that is written without one: PostgreSQL's default.
const SCHEMA: &str = "public";

/// A dataset's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dataset {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Where a locator stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) pipeline: &'a str,
    /// The source or sink.
    pub(super) subject: &'a Name,
    /// The folder that relative paths start from.
    pub(super) base: Option<&'a str>,
    pub(super) connections: Option<&'a BTreeMap<Name, Identity>>,
}

// === impl Dataset ===

impl Dataset {
    /// Names what is at a locator.
    pub(super) fn of(locator: &Locator, place: &Place<'_>) -> Self {
        match locator {
            Locator::Uri(uri) => Self::of_uri(uri, place.base),
            Locator::Table { connection, table } => {
                let schema = table.schema.as_deref().unwrap_or(SCHEMA);
                Self::of_database(connection, place, |database| format!("{database}.{schema}.{}", table.table))
            }
            Locator::Query { connection, .. } => Self::of_database(connection, place, |database| {
                format!("{database}/{}/{}", place.pipeline, place.subject)
            }),
        }
    }

    fn of_database(connection: &Name, place: &Place<'_>, name: impl Fn(&str) -> String) -> Self {
        let Some(identity) = place.connections.and_then(|connections| connections.get(connection)) else {
            return Self { namespace: format!("connection:{connection}"), name: name(connection.as_str()) };
        };
        let scheme = if identity.scheme == "postgresql" { "postgres" } else { &identity.scheme };
        let host = identity.host.as_deref().unwrap_or("localhost");
        let port = identity.port.map(|port| format!(":{port}")).unwrap_or_default();
        let database = identity.database.as_deref().unwrap_or(connection.as_str());
        Self { namespace: format!("{scheme}://{host}{port}"), name: name(database) }
    }

    fn of_uri(uri: &str, base: Option<&str>) -> Self {
        let local = |path: &str| Self { namespace: "file".into(), name: clean(path) };
        let Some((scheme, rest)) = uri.split_once("://") else {
            if uri.starts_with('/') {
                return local(uri);
            }
            let base = base.unwrap_or_default();
            let base = base.strip_prefix("file://").unwrap_or(base).trim_end_matches('/');
            return local(&format!("{base}/{uri}"));
        };
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        let scheme = scheme.to_ascii_lowercase();
        if scheme == "file" {
            return local(&format!("/{}", percent_decode_str(key).decode_utf8_lossy()));
        }
        // No spec with a credential in a URI is taken; none would be told either.
        let host = host.rsplit('@').next().unwrap_or_default();
        let name = if scheme == "https" { key.split(['?', '#']).next().unwrap_or_default() } else { key };
        Self { namespace: format!("{scheme}://{host}"), name: if name.is_empty() { "/".into() } else { name.into() } }
    }
}

/// Removes `.`, doubled slashes and `..` from a path, and the slash at its end.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dagwright_model::{facts::Identity, id::Name, spec::Locator};

    use super::{Dataset, Place};

    #[track_caller]
    fn check(locator: &Locator, namespace: &str, name: &str) {
        let warehouse = Identity {
            scheme: "postgresql".into(),
            host: Some("db.example".into()),
            port: Some(5432),
            database: Some("shop".into()),
        };
        let (connections, subject) = (BTreeMap::from([(connection("w"), warehouse)]), connection("orders"));
        let place =
            Place { pipeline: "sales.daily", subject: &subject, base: Some("/base/"), connections: Some(&connections) };
        let named = Dataset::of(locator, &place);
        assert_eq!((named.namespace.as_str(), named.name.as_str()), (namespace, name), "{locator:?}");
    }

    fn connection(name: &str) -> Name {
        name.parse().expect("a name")
    }

    fn table(connection_name: &str, table: &str) -> Locator {
        let table = table.to_owned().try_into().expect("a table");
        Locator::Table { connection: connection(connection_name), table }
    }

    #[test]
    fn tables_are_named_by_their_system() {
        check(&table("w", "mart.orders"), "postgres://db.example:5432", "shop.mart.orders");
        check(&table("w", "orders"), "postgres://db.example:5432", "shop.public.orders");
        check(&table("gone", "orders"), "connection:gone", "gone.public.orders");
        let query =
            Locator::Query { connection: connection("w"), query: "SELECT 1".into(), binds: BTreeMap::default() };
        check(&query, "postgres://db.example:5432", "shop/sales.daily/orders");
    }

    #[test]
    fn files_are_named_by_where_they_are() {
        for (uri, namespace, name) in [
            ("/a/b.csv", "file", "/a/b.csv"),
            ("data/../b.csv", "file", "/base/b.csv"),
            ("out/{data_interval_start:%Y}/", "file", "/base/out/{data_interval_start:%Y}"),
            ("file:///a%20b/c.csv", "file", "/a b/c.csv"),
            ("s3://lake/in/*.parquet", "s3://lake", "in/*.parquet"),
            ("S3://lake", "s3://lake", "/"),
            ("az://container/key", "az://container", "key"),
            ("https://host:8443/a/b.csv?token=hunter2", "https://host:8443", "a/b.csv"),
            ("https://user:hunter2@host/a", "https://host", "a"),
        ] {
            check(&Locator::Uri(uri.into()), namespace, name);
        }
    }
}
