//! Every setting with its value, and where that is from.

use std::{env, path::Path};

use config::{Value, ValueKind};

use super::{
    CONNECTION_PREFIX, Config, Error,
    diagnose::{self, Origin},
    layers,
};

/// Every setting that has a value, in the order of keys.
pub(crate) struct Settings(Vec<(String, Value, Origin)>);

// === impl Settings ===

impl Settings {
    /// Reads what [`Config::load`] reads.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, Error> {
        Config::load(file)?;
        let mut settings = diagnose::leaves(&layers(file)?);
        for (variable, url) in env::vars() {
            let Some(suffix) = variable.strip_prefix(CONNECTION_PREFIX) else { continue };
            let key = format!("connections.{}.url", suffix.to_ascii_lowercase());
            settings.retain(|(other, ..)| *other != key);
            settings.push((key, url.into(), Origin::Variable(variable)));
        }
        settings.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        Ok(Self(settings))
    }

    /// Returns the keys whose values differ.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let has = |settings: &Self, (key, value, _): &(String, Value, Origin)| {
            settings.0.iter().any(|(known, same, _)| known == key && same.kind == value.kind)
        };
        let missing = |from: &Self, to: &Self| -> Vec<String> {
            from.0.iter().filter(|setting| !has(to, setting)).map(|(key, ..)| key.clone()).collect()
        };
        let mut keys = missing(self, other);
        keys.extend(missing(other, self));
        keys.sort();
        keys.dedup();
        keys
    }

    /// Returns them for people: secrets are masked.
    pub(crate) fn masked(mut self) -> Vec<(String, Value, Origin)> {
        for (key, value, _) in &mut self.0 {
            mask(key, value);
        }
        self.0
    }
}

/// What librdkafka's names of secrets have among their words.
const SECRET_WORDS: [&str; 9] = ["password", "passwd", "secret", "token", "key", "pem", "jaas", "assertion", "config"];

/// How the names end of what only says where a secret is.
const PLACES: [&str; 3] = ["location", "file", "path"];

/// Tells whether a property of librdkafka's holds a secret, by its name.
fn is_secret_property(key: &str) -> bool {
    let Some(name) = key.strip_prefix("kafka.properties.") else { return false };
    let words: Vec<_> = name.split(['.', '_', '-']).map(str::to_ascii_lowercase).collect();
    words.iter().any(|word| SECRET_WORDS.contains(&word.as_str()))
        && !words.last().is_some_and(|word| PLACES.contains(&word.as_str()))
}

/// Takes out a secret; out of a URL what only its owner may know: user, password, and what follows `?` but for harmless words.
fn mask(key: &str, value: &mut Value) {
    const HARMLESS: [&str; 4] = ["sslmode", "connect_timeout", "application_name", "target_session_attrs"];
    const MASK: &str = "***";
    if is_secret_property(key) {
        *value = MASK.into();
        return;
    }
    let text = match &mut value.kind {
        ValueKind::String(text) => text,
        ValueKind::Array(values) => return values.iter_mut().for_each(|value| mask(key, value)),
        _ => return,
    };
    if !text.contains("://") {
        if ["connections.", "webhooks.", "lineage."].iter().any(|table| key.starts_with(table)) && key.ends_with(".url")
        {
            *text = MASK.into();
        }
        return;
    }
    let Ok(mut url) = url::Url::parse(text) else {
        *text = MASK.into();
        return;
    };
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    if key.starts_with("webhooks.") {
        // Some receivers know their callers by the path.
        url.set_path(MASK);
    }
    let is_plain = url.username().is_empty() && url.password().is_none() && pairs.is_empty();
    if is_plain && !key.starts_with("webhooks.") {
        return;
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Neither fails where one of them could be set.
        let _ = url.set_username(MASK);
        let _ = url.set_password(None);
    }
    if !pairs.is_empty() {
        let shown = |(name, value): &(String, String)| {
            format!("{name}={}", if HARMLESS.contains(&name.as_str()) { value } else { MASK })
        };
        url.set_query(Some(&pairs.iter().map(shown).collect::<Vec<_>>().join("&")));
    }
    *text = url.into();
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{Origin, Settings};

    fn settings(toml: &str) -> Settings {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        Settings::read(Some(file.path())).unwrap()
    }

    #[test]
    fn secrets_are_masked() {
        let shown = |url: &str| {
            let settings = settings(&format!("[connections.w]\nurl = {url:?}")).masked();
            let found = settings.iter().find(|(key, ..)| key == "connections.w.url").unwrap();
            assert!(matches!(found.2, Origin::File(_)));
            found.1.clone().into_string().unwrap()
        };
        for (url, wanted) in [
            ("postgresql://h:5432/db", "postgresql://h:5432/db"),
            ("postgresql://u:hunter2@h/db", "postgresql://***@h/db"),
            (
                "postgresql://u@h/db?sslmode=require&password=hunter2",
                "postgresql://***@h/db?sslmode=require&password=***",
            ),
            ("host=h password=hunter2", "***"),
            ("postgresql://u:hunter2@h:port/db", "***"),
        ] {
            assert_eq!(shown(url), wanted);
        }
    }

    #[test]
    fn where_webhooks_are_is_told_by_host_alone() {
        let settings = settings("[webhooks.w]\nurl = \"https://h:8443/services/hunter2?key=hunter2\"").masked();
        let found = settings.iter().find(|(key, ..)| key == "webhooks.w.url").unwrap();
        assert_eq!(found.1.clone().into_string().unwrap(), "https://h:8443/***?key=***");
    }

    #[test]
    fn secrets_of_kafka_are_masked_by_their_names() {
        let settings = settings(
            "[kafka.properties]\nsasl.username = \"u\"\nsasl.password = \"hunter2\"\n\"sasl.oauthbearer.client.secret\" = 22\n\
             ssl.key.password = \"hunter2\"\nssl.key.pem = \"hunter2\"\nssl.key.location = \"/k\"\n\
             sasl.oauthbearer.config = \"hunter2\"\nsasl.oauthbearer.token.endpoint.url = \"https://u:hunter2@h/\"\n\
             security.protocol = \"sasl_ssl\"\n\"ssl_key\" = \"hunter2\"\n",
        );
        let shown: Vec<_> = settings
            .masked()
            .into_iter()
            .filter_map(|(key, value, _)| Some(format!("{} {value}", key.strip_prefix("kafka.properties.")?)))
            .collect();
        let wanted = [
            "sasl.oauthbearer.client.secret ***",
            "sasl.oauthbearer.config ***",
            "sasl.oauthbearer.token.endpoint.url ***",
            "sasl.password ***",
            "sasl.username u",
            "security.protocol sasl_ssl",
            "ssl.key.location /k",
            "ssl.key.password ***",
            "ssl.key.pem ***",
            "ssl_key ***",
        ];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn differences_are_told_by_key() {
        let (a, b) = (settings("[limits]\nruns = 3"), settings("[store]\npath = \"x\"\n[uris]\nallow = [\"/a\"]"));
        assert_eq!(a.differences(&b), ["limits.runs", "store.path", "uris.allow"]);
        assert!(a.differences(&a).is_empty());
    }
}
