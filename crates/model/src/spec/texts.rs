//! Checks every text of a spec, wherever it stands: no credentials, no control characters.

use super::{
    normalize::sql,
    report::{Report, Site, quoted},
    secrets,
    tree::{Kind, Node},
};
use crate::code::Code;

/// Keys whose value is SQL.
const SQL_KEYS: [&str; 3] = ["sql", "query", "check"];

/// Checks all texts of a tree.
pub(super) fn check(root: &Node, report: &mut Report) {
    node(root, "", &Site::root(Some(root)), report);
}

fn node<'t>(node_: &'t Node, key: &str, site: &Site<'t>, report: &mut Report) {
    match &node_.kind {
        Kind::Text(text) => self::text(text, key, site, report),
        Kind::List(items) => {
            for (index, item) in items.iter().enumerate() {
                node(item, key, &site.index(index), report);
            }
        }
        Kind::Map(entries) => {
            for entry in entries {
                let site = site.entry(entry);
                if has_control(&entry.key) {
                    let message = format!("the key {} holds a control character", quoted(&entry.key));
                    report.push(Code::SpecBadName, &site, message, "remove it");
                }
                node(&entry.node, &entry.key, &site, report);
            }
        }
        Kind::Null | Kind::Bool(_) | Kind::Integer(_) | Kind::Unsigned(_) | Kind::Float(_) => {}
    }
}

fn text(text: &str, key: &str, site: &Site<'_>, report: &mut Report) {
    if has_control(text) {
        report.push(Code::SpecWrongType, site, "the text holds a control character", "remove it");
    }
    let found = if key == "uri" {
        secrets::in_uri(text)
    } else if SQL_KEYS.contains(&key) {
        secrets::in_text(text).or_else(|| sql::literals(text).iter().find_map(|literal| secrets::in_literal(literal)))
    } else if secrets::is_secret_name(key) && !text.is_empty() {
        Some("a key that carries a credential")
    } else {
        secrets::in_text(text)
    };
    if let Some(kind) = found {
        let message = format!("a credential stands here: {kind}");
        let hint = "name a connection instead, whose password is in the environment or the configuration; and change \
                    this one, for it may have been seen";
        report.push(Code::SpecCredential, site, message, hint);
    }
}

fn has_control(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
}
