//! The values of bearer tokens: each from a variable, or from a file that is read again when the configuration is.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use super::{Http, Token};

/// The fewest characters of a token: what somebody could guess is none.
const LENGTH_MIN: usize = 16;

/// The largest file with a secret that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What others than its owner and group may do with a file that they can read.
const OTHERS: u32 = 0o004;

/// What is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The setting.
    pub(crate) key: String,
    pub(crate) message: String,
    pub(crate) hint: &'static str,
}

// === impl Http ===

impl Http {
    /// Returns the values of the tokens by name; `variable` reads the environment.
    ///
    /// # Errors
    /// Everything that is wrong with any of them; no value is told.
    pub(crate) fn token_values(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<String, String>, Vec<Fault>> {
        let (mut values, mut faults) = (BTreeMap::new(), Vec::new());
        for (name, token) in &self.tokens {
            match token.value(name, &variable) {
                Ok(value) => drop(values.insert(name.clone(), value)),
                Err(fault) => faults.push(fault),
            }
        }
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in &values {
            if let Some(other) = owners.insert(value, name) {
                let key = format!("http.tokens.{name}");
                let message = format!("it has the same token as http.tokens.{other}");
                faults.push(Fault { key, message, hint: "give each caller a token of their own" });
            }
        }
        if faults.is_empty() { Ok(values) } else { Err(faults) }
    }

    /// Returns the files of tokens that every user of this machine may read.
    pub(crate) fn token_files_open_to_all(&self) -> Vec<&Path> {
        let files = self.tokens.values().filter_map(|token| token.token_file.as_deref());
        files.filter(|file| file.metadata().is_ok_and(|about| about.permissions().mode() & OTHERS != 0)).collect()
    }
}

// === impl Token ===

impl Token {
    fn value(&self, name: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<String, Fault> {
        let fault = |key: &str, message: String, hint| {
            let key = format!("http.tokens.{name}{}{key}", if key.is_empty() { "" } else { "." });
            Fault { key, message, hint }
        };
        let (key, value) = match (&self.token_env, &self.token_file) {
            (Some(variable_name), None) => {
                let value = variable(variable_name).filter(|value| !value.is_empty());
                let missing = || format!("the token is taken from {variable_name}, which is not set");
                let hint = "set the variable where the daemon starts";
                ("token_env", value.ok_or_else(|| fault("token_env", missing(), hint))?)
            }
            (None, Some(file)) => {
                let unreadable = |error| format!("the token is taken from {}: {error}", file.display());
                let hint = "write the token into that file, for the daemon's user alone to read";
                let value = secret_file(file).map_err(|error| fault("token_file", unreadable(error), hint))?;
                ("token_file", value)
            }
            (None, None) | (Some(_), Some(_)) => {
                let message = "it takes its token from token_env or from token_file, one of them".into();
                return Err(fault("", message, "set one of them"));
            }
        };
        if value.chars().count() < LENGTH_MIN {
            let message = format!("the token has fewer than {LENGTH_MIN} characters");
            return Err(fault(key, message, "make one with `openssl rand -hex 32`"));
        }
        Ok(value)
    }
}

/// Reads a file that holds a secret in its only line; the line's end does not belong to it.
pub(super) fn secret_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    match line {
        "" => wrong("the file is empty"),
        line if line.contains(['\n', '\r']) => wrong("the file has more than one line"),
        line => Ok(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use super::secret_file;
    use crate::config::Config;

    #[track_caller]
    fn faults(folder: &Path, tokens: &str) -> Vec<String> {
        let file = folder.join("c.toml");
        fs::write(&file, tokens.replace("HERE", &folder.display().to_string())).unwrap();
        let config = Config::load(Some(&file)).unwrap();
        let variable = |name: &str| match name {
            "LONG" => Some("long-0123456789abcdef".to_owned()),
            "SHORT" => Some("short".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        match config.http.token_values(variable) {
            Ok(values) => values.into_iter().map(|(name, value)| format!("{name} = {value}")).collect(),
            Err(faults) => faults.iter().map(|fault| format!("{}: {}", fault.key, fault.message)).collect(),
        }
    }

    #[test]
    fn a_token_is_the_only_line_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, wanted) in [
            ("0123456789abcdef", Ok("0123456789abcdef")),
            ("0123456789abcdef\n", Ok("0123456789abcdef")),
            (" spaces are kept \r\n", Ok(" spaces are kept ")),
            ("two\nlines\n", Err("the file has more than one line")),
            ("\n", Err("the file is empty")),
            ("", Err("the file is empty")),
        ] {
            fs::write(&path, text).unwrap();
            let read = secret_file(&path).map_err(|error| error.to_string());
            assert_eq!(read.as_deref().map_err(String::as_str), wanted, "{text:?}");
        }
        fs::write(&path, [0xff; 20]).unwrap();
        assert!(secret_file(&path).is_err());
    }

    #[test]
    fn every_token_that_is_wrong_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display().to_string();
        fs::write(folder.path().join("good"), "good-0123456789abcdef\n").unwrap();
        fs::write(folder.path().join("same"), "long-0123456789abcdef\n").unwrap();
        let scopes = "scopes = [\"read\"]\n";
        let tokens = [
            ("a", "token_env = \"LONG\"\n"),
            ("b", "token_env = \"SHORT\"\n"),
            ("c", "token_env = \"EMPTY\"\n"),
            ("d", "token_env = \"ABSENT\"\n"),
            ("e", "token_file = \"HERE/absent\"\n"),
            ("f", "token_file = \"HERE/good\"\n"),
            ("g", "token_file = \"HERE/same\"\n"),
            ("h", "token_env = \"LONG\"\ntoken_file = \"HERE/good\"\n"),
            ("i", ""),
        ];
        let text: String = tokens.iter().map(|(name, from)| format!("[http.tokens.{name}]\n{from}{scopes}")).collect();
        let one = "it takes its token from token_env or from token_file, one of them";
        assert_eq!(
            faults(folder.path(), &text),
            [
                "http.tokens.b.token_env: the token has fewer than 16 characters".to_owned(),
                "http.tokens.c.token_env: the token is taken from EMPTY, which is not set".into(),
                "http.tokens.d.token_env: the token is taken from ABSENT, which is not set".into(),
                format!(
                    "http.tokens.e.token_file: the token is taken from {here}/absent: No such file or directory (os error 2)"
                ),
                format!("http.tokens.h: {one}"),
                format!("http.tokens.i: {one}"),
                "http.tokens.g: it has the same token as http.tokens.a".into(),
            ]
        );
        let fine = format!("[http.tokens.f]\ntoken_file = \"HERE/good\"\n{scopes}");
        assert_eq!(faults(folder.path(), &fine), ["f = good-0123456789abcdef"]);
    }

    #[test]
    fn files_that_all_may_read_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        fs::write(&token, "0123456789abcdef").unwrap();
        let file = folder.path().join("c.toml");
        fs::write(&file, format!("[http.tokens.a]\ntoken_file = {token:?}\nscopes = [\"read\"]\n")).unwrap();
        let config = Config::load(Some(&file)).unwrap();
        for (mode, wanted) in [(0o600, vec![]), (0o640, vec![]), (0o644, vec![token.as_path()])] {
            fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(config.http.token_files_open_to_all(), wanted, "{mode:o}");
        }
    }
}
