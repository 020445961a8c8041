//! What may be set for a Git repository: nothing that is an option, leads elsewhere, or holds a secret.

use super::{Error, GitSettings};

const BYTES_MAX: usize = 1000;

/// How many folders a subfolder may lie in.
const DEPTH_MAX: usize = 16;

impl GitSettings {
    /// Checks that the settings can be used.
    pub(super) fn check(&self) -> Result<(), Error> {
        check_url(&self.url).map_err(bad("url"))?;
        check_path(&self.branch, false).map_err(bad("branch"))?;
        if let Some(subfolder) = &self.subfolder {
            check_path(subfolder, true).map_err(bad("subfolder"))?;
        }
        check_author(&self.author).map_err(bad("author"))
    }
}

fn bad(setting: &'static str) -> impl FnOnce(&'static str) -> Error {
    move |reason| Error::BadSetting { setting, reason }
}

fn check_url(url: &str) -> Result<(), &'static str> {
    if url.is_empty()
        || url.len() > BYTES_MAX
        || url.starts_with('-')
        || url.chars().any(|c| c.is_control() || c == ' ')
    {
        return Err("is no URL of a repository");
    }
    if let Some((scheme, rest)) = url.split_once("://") {
        let authority = rest.split('/').next().unwrap_or_default();
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        return match scheme {
            // A host that looks like an option would reach ssh.
            "https" | "ssh" if authority.is_empty() || authority.starts_with('-') => Err("names no host"),
            "https" | "ssh" | "file" if user.is_some_and(|user| user.contains(':')) => {
                Err("holds a password; give it in .netrc, or use a key")
            }
            "https" | "ssh" | "file" => Ok(()),
            _ => Err("is of a protocol that is not used; https, ssh and file are"),
        };
    }
    // `<helper>::<address>` would start a program.
    let scp =
        !url.contains("::") && url.split_once(':').is_some_and(|(host, path)| !host.contains('/') && !path.is_empty());
    if url.starts_with('/') || scp { Ok(()) } else { Err("is neither a URL nor an absolute path") }
}

/// Checks a path of names joined by `/`, as branches and folders are.
fn check_path(path: &str, is_folder: bool) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let good = |part: &str| {
        let plain = !part.is_empty() && part.bytes().all(allowed) && !part.starts_with(['.', '-']);
        plain && (is_folder || !(part.ends_with(".lock") || part.ends_with('.') || part.contains("..")))
    };
    if path.len() > BYTES_MAX || path.split('/').count() > DEPTH_MAX || !path.split('/').all(good) {
        return Err("may have letters, digits, `_`, `-`, `.`, and between names `/`");
    }
    Ok(())
}

fn check_author(author: &str) -> Result<(), &'static str> {
    let wrong = "must be `Name <email>`";
    let (name, rest) = author.split_once(" <").ok_or(wrong)?;
    let email = rest.strip_suffix('>').ok_or(wrong)?;
    let plain = |text: &str| !text.trim().is_empty() && !text.chars().any(|c| c.is_control() || matches!(c, '<' | '>'));
    if author.len() <= BYTES_MAX && plain(name) && plain(email) { Ok(()) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::airflow::deploy::{Error, Git, GitSettings};

    #[track_caller]
    fn check(change: impl FnOnce(&mut GitSettings), refused: Option<&str>) {
        let mut settings = GitSettings {
            path: PathBuf::from("/nowhere"),
            url: "https://git.example.org/dags.git".into(),
            branch: "main".into(),
            subfolder: None,
            author: "Dagwright <dagwright@example.org>".into(),
        };
        change(&mut settings);
        match (Git::new(settings), refused) {
            (Ok(_), None) => {}
            (Err(Error::BadSetting { setting, .. }), Some(wanted)) => assert_eq!(setting, wanted),
            (other, wanted) => panic!("{wanted:?}, but {other:?}"),
        }
    }

    #[test]
    fn urls_are_of_safe_protocols_and_hold_no_password() {
        for url in [
            "https://git.example.org/a.git",
            "https://bot@git.example.org/a.git",
            "ssh://git@git.example.org:2222/a.git",
            "git@git.example.org:team/a.git",
            "file:///srv/git/a.git",
            "/srv/git/a.git",
        ] {
            check(|settings| settings.url = url.into(), None);
        }
        for url in [
            "",
            "a.git",
            "../a.git",
            "--upload-pack=touch /tmp/x",
            "-oProxyCommand=x:y",
            "ext::sh -c x",
            "ext::sh",
            "http://git.example.org/a.git",
            "git://git.example.org/a.git",
            "ssh://-oProxyCommand=x/a",
            "https:///a.git",
            "https://bot:secret@git.example.org/a.git",
            "https://git.example.org/a\nb",
        ] {
            check(|settings| settings.url = url.into(), Some("url"));
        }
    }

    #[test]
    fn branches_folders_and_authors_are_plain() {
        for name in ["main", "release/2026-01", "a_b.c"] {
            check(|settings| settings.branch = name.into(), None);
            check(|settings| settings.subfolder = Some(name.into()), None);
        }
        for name in ["", "-x", "/a", "a/", "a//b", "..", "a/../b", ".git", "a b", "a\nb", "a:b", "a~1", "ä"] {
            check(|settings| settings.branch = name.into(), Some("branch"));
            check(|settings| settings.subfolder = Some(name.into()), Some("subfolder"));
        }
        check(|settings| settings.branch = "a.lock".into(), Some("branch"));
        for author in ["", "Name", "<a@b>", "Name <>", "Name <a@b", "Na\nme <a@b>", "A <b> <c@d>"] {
            check(|settings| settings.author = author.into(), Some("author"));
        }
    }
}
