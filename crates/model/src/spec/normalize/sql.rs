//! Looks at SQL without understanding it: which relations and binds it uses, and what its literals say.
//!
//! Steps are planned with DataFusion later, by `dagwright-task plan`. What is needed before that is their order, and
//! whether a name is misspelt; for this a token scan suffices, which reads literals, quoted identifiers and comments
//! as what they are and looks for names in table position (after FROM, JOIN and the commas between them).

use std::collections::BTreeSet;

/// A token of SQL; operators and punctuation are single characters.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// An unquoted word, in lower case.
    Word(String),
    /// A quoted identifier, as it is.
    Quoted(String),
    /// A text literal's content.
    Literal(String),
    /// A bind, without `$`, and where it starts.
    Bind(String, usize),
    /// Any other character.
    Sign(char),
}

/// What a statement shows at a glance.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::spec) struct Glance {
    /// The names in table position that the statement does not define itself, in order of appearance.
    pub(in crate::spec) relations: Vec<String>,
    /// The binds, without `$`.
    pub(in crate::spec) binds: BTreeSet<String>,
    /// The first word, in lower case.
    pub(in crate::spec) verb: String,
    /// Whether something follows a semicolon.
    pub(in crate::spec) several: bool,
    /// Whether a quote or comment never ends, or a parenthesis does not match.
    pub(in crate::spec) open: bool,
}

/// Looks at a statement.
pub(in crate::spec) fn glance(sql: &str) -> Glance {
    let (tokens, mut open) = tokens(sql);
    let mut depth = 0_usize;
    for token in &tokens {
        match token {
            Token::Sign('(') => depth += 1,
            Token::Sign(')') if depth == 0 => open = true,
            Token::Sign(')') => depth -= 1,
            Token::Sign(_) | Token::Word(_) | Token::Quoted(_) | Token::Literal(_) | Token::Bind(..) => {}
        }
    }
    let end = tokens.iter().position(|token| *token == Token::Sign(';')).unwrap_or(tokens.len());
    let verb = tokens.iter().find_map(|token| match token {
        Token::Sign('(') => None,
        Token::Word(word) => Some(word.clone()),
        Token::Sign(_) | Token::Quoted(_) | Token::Literal(_) | Token::Bind(..) => Some(String::new()),
    });
    let binds = tokens.iter().filter_map(|token| match token {
        Token::Bind(name, _) => Some(name.clone()),
        Token::Word(_) | Token::Quoted(_) | Token::Literal(_) | Token::Sign(_) => None,
    });
    Glance {
        binds: binds.collect(),
        verb: verb.unwrap_or_default(),
        several: tokens[end..].iter().any(|token| *token != Token::Sign(';')),
        open: open || depth > 0,
        relations: relations(&tokens),
    }
}

/// Returns the contents of all text literals.
pub(in crate::spec) fn literals(sql: &str) -> Vec<String> {
    let literal = |token| match token {
        Token::Literal(text) => Some(text),
        Token::Word(_) | Token::Quoted(_) | Token::Bind(..) | Token::Sign(_) => None,
    };
    tokens(sql).0.into_iter().filter_map(literal).collect()
}

/// Puts what `replace` gives in the place of each bind; quotes, names and comments stay as they are.
///
/// # Errors
/// The first error of `replace`.
pub fn replace_binds<E>(sql: &str, mut replace: impl FnMut(&str) -> Result<String, E>) -> Result<String, E> {
    let (mut replaced, mut done) = (String::with_capacity(sql.len()), 0);
    for token in tokens(sql).0 {
        if let Token::Bind(name, at) = token {
            replaced.push_str(&sql[done..at]);
            replaced.push_str(&replace(&name)?);
            done = at + 1 + name.len();
        }
    }
    replaced.push_str(&sql[done..]);
    Ok(replaced)
}

/// One level of parentheses.
#[derive(Clone, Copy, Default)]
struct Level {
    /// SELECT was seen: a FROM here is a clause, not a part of `EXTRACT(YEAR FROM x)`.
    selected: bool,
    /// Inside a FROM clause, where a comma leads to the next relation.
    in_from: bool,
    /// The next word is a relation.
    expects: bool,
}

fn relations(tokens: &[Token]) -> Vec<String> {
    let own = common_tables(tokens);
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let mut levels = vec![Level::default()];
    for (index, token) in tokens.iter().enumerate() {
        let before = |back: usize| index.checked_sub(back).map(|at| &tokens[at]);
        let is_outermost = levels.len() == 1;
        let Some(level) = levels.last_mut() else { break };
        match token {
            Token::Word(word) if level.expects && matches!(word.as_str(), "lateral" | "only") => {}
            Token::Word(word) if !(level.expects && is_relation_word(word)) => match word.as_str() {
                "select" => *level = Level { selected: true, ..Level::default() },
                "from" => {
                    let distinct = before(1) == Some(&Token::Word("distinct".into()))
                        && before(2).is_some_and(|token| matches!(token, Token::Word(w) if w == "is" || w == "not"));
                    if level.selected && !distinct {
                        (level.in_from, level.expects) = (true, true);
                    }
                }
                "join" => level.expects = true,
                "table" if !level.selected && !matches!(before(1), Some(Token::Word(w)) if !is_set_word(w)) => {
                    level.expects = true;
                }
                "where" | "group" | "order" | "having" | "limit" | "offset" | "fetch" | "window" | "qualify" => {
                    (level.in_from, level.expects) = (false, false);
                }
                "union" | "except" | "intersect" => *level = Level::default(),
                _ => {}
            },
            Token::Word(name) | Token::Quoted(name) if level.expects => {
                level.expects = false;
                // Part of a longer name, a table function, or a number after a comma.
                let other = matches!(tokens.get(index + 1), Some(Token::Sign('.' | '(')))
                    || matches!(token, Token::Word(word) if word.starts_with(|c: char| c.is_ascii_digit()));
                if !other && !own.contains(name) && seen.insert(name.clone()) {
                    found.push(name.clone());
                }
            }
            // A literal, number or bind is no relation.
            Token::Literal(_) | Token::Bind(..) => level.expects = false,
            Token::Sign('(' | '[' | '{') => {
                let expects = std::mem::take(&mut level.expects);
                levels.push(Level { selected: false, in_from: expects, expects });
            }
            Token::Sign(')' | ']' | '}') if !is_outermost => {
                levels.pop();
            }
            Token::Sign(',') if level.in_from => level.expects = true,
            Token::Word(_) | Token::Quoted(_) | Token::Sign(_) => {}
        }
    }
    found
}

/// Words between two queries.
fn is_set_word(word: &str) -> bool {
    matches!(word, "union" | "except" | "intersect" | "all" | "distinct")
}

/// Words that end the expectation of a relation rather than name one.
fn is_relation_word(word: &str) -> bool {
    !matches!(word, "select" | "with" | "values" | "where" | "group" | "order" | "having" | "limit" | "union" | "join")
}

/// The names that `WITH … AS (…)` defines.
fn common_tables(tokens: &[Token]) -> BTreeSet<String> {
    let word = |at: usize, wanted: &str| matches!(tokens.get(at), Some(Token::Word(word)) if word == wanted);
    let mut found = BTreeSet::new();
    if !(0..tokens.len()).any(|at| word(at, "with")) {
        return found;
    }
    for at in (1..tokens.len()).filter(|at| word(*at, "as")) {
        let body = (at + 1..at + 4).find(|next| !word(*next, "not") && !word(*next, "materialized"));
        if body.and_then(|next| tokens.get(next)) != Some(&Token::Sign('(')) {
            continue;
        }
        let mut name = at - 1;
        if tokens[name] == Token::Sign(')') {
            // The list of the table's columns.
            name = tokens[..name].iter().rposition(|token| *token == Token::Sign('(')).unwrap_or(0).saturating_sub(1);
        }
        if let Token::Word(name) | Token::Quoted(name) = &tokens[name] {
            found.insert(name.clone());
        }
    }
    found
}

/// Splits SQL into tokens without comments; tells as well whether a quote or comment never ends.
fn tokens(sql: &str) -> (Vec<Token>, bool) {
    let mut tokens = Vec::new();
    let mut rest = sql;
    let mut open = false;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        if first.is_whitespace() {
            rest = after;
        } else if rest.starts_with("--") {
            rest = rest.split_once('\n').map_or("", |(_, tail)| tail);
        } else if rest.starts_with("/*") {
            (rest, open) = comment(rest, open);
        } else if first == '\'' || first == '"' || first == '`' {
            let escapes =
                first == '\'' && tokens.last() == Some(&Token::Word("e".into())) && sql_is_adjacent(sql, rest);
            let (text, tail, closed) = quoted(after, first, escapes);
            open |= !closed;
            tokens.push(if first == '\'' { Token::Literal(text) } else { Token::Quoted(text) });
            rest = tail;
        } else if first == '$' {
            let end = after.find(|c: char| !is_word(c)).unwrap_or(after.len());
            let (name, tail) = after.split_at(end);
            match tail.strip_prefix('$').filter(|_| !name.starts_with(|c: char| c.is_ascii_digit())) {
                // PostgreSQL's dollar quotes.
                Some(body) => {
                    let quote = format!("${name}$");
                    open |= !body.contains(&quote);
                    let (text, tail) = body.split_once(&quote).unwrap_or((body, ""));
                    tokens.push(Token::Literal(text.into()));
                    rest = tail;
                }
                None => {
                    tokens.push(Token::Bind(name.into(), sql.len() - rest.len()));
                    rest = tail;
                }
            }
        } else if is_word(first) {
            // A name may hold `$`, though not start with it.
            let end = rest.find(|c: char| !is_word(c) && c != '$').unwrap_or(rest.len());
            let (word, tail) = rest.split_at(end);
            tokens.push(Token::Word(word.to_lowercase()));
            rest = tail;
        } else {
            tokens.push(Token::Sign(first));
            rest = after;
        }
    }
    (tokens, open)
}

/// Tells whether no white space stands before `rest`, as in `E'…'`.
fn sql_is_adjacent(sql: &str, rest: &str) -> bool {
    sql[..sql.len() - rest.len()].ends_with(['e', 'E'])
}

/// Passes over a comment, which may hold others.
fn comment(sql: &str, open: bool) -> (&str, bool) {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(found) = sql[at..].find(['/', '*']) {
        at += found;
        match sql.get(at..at + 2) {
            Some("/*") => (depth, at) = (depth + 1, at + 2),
            Some("*/") => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return (&sql[at..], open);
        }
    }
    ("", true)
}

/// Reads up to the closing quote; a doubled one stands for itself.
fn quoted(text: &str, quote: char, escapes: bool) -> (String, &str, bool) {
    let mut content = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            content.extend(chars.next().map(|(_, c)| c));
        } else if c != quote {
            content.push(c);
        } else if text[at + 1..].starts_with(quote) {
            content.push(c);
            chars.next();
        } else {
            return (content, &text[at + 1..], true);
        }
    }
    (content, "", false)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::{glance, literals, replace_binds};

    #[track_caller]
    fn check(sql: &str, relations: &[&str]) {
        assert_eq!(glance(sql).relations, relations, "{sql}");
    }

    #[test]
    fn relations_stand_in_table_position() {
        check("SELECT * FROM a", &["a"]);
        check("select * from A left join B using (x), c d, LATERAL e", &["a", "b", "c", "e"]);
        check("SELECT * FROM \"A\" JOIN `b` ON a.x = b.from_", &["A", "b"]);
        check(
            "SELECT x FROM (SELECT * FROM a WHERE y IN (SELECT y FROM b)) q, (c CROSS JOIN d)",
            &["a", "b", "c", "d"],
        );
        check("SELECT EXTRACT(YEAR FROM b), TRIM(BOTH ' ' FROM c) FROM a", &["a"]);
        check("SELECT x IS NOT DISTINCT FROM b, x IS DISTINCT FROM c FROM a", &["a"]);
        check("SELECT DISTINCT x FROM a", &["a"]);
        check("SELECT 'FROM b' AS \"FROM c\" -- FROM d\n/* FROM e /* FROM f */ */ FROM a", &["a"]);
        check("SELECT a.x, b FROM a WHERE c = 1 ORDER BY d, e", &["a"]);
        check("WITH b AS (SELECT * FROM a), c (x, y) AS MATERIALIZED (SELECT 1, 2) SELECT * FROM b JOIN c", &["a"]);
        check("SELECT * FROM generate_series(1, 3) JOIN information_schema.tables USING (x)", &[]);
        check("SELECT * FROM a UNION ALL SELECT * FROM b UNION TABLE c", &["a", "b", "c"]);
        check("TABLE a", &["a"]);
        check("SELECT * FROM 'x.csv' f JOIN a ON a.x = ARRAY[1, 2] AND a.y = {'k': 1, 'l': b}, c", &["a", "c"]);
        check("VALUES (1, 2)", &[]);
        check("(SELECT * FROM a) EXCEPT (SELECT * FROM b)", &["a", "b"]);
        check("SELECT * FROM a JOIN (b JOIN c ON b.x = c.x) ON a.x = b.x, d", &["a", "b", "c", "d"]);
    }

    #[test]
    fn binds_and_faults_are_seen() {
        let seen = glance("SELECT $region, '$no', $_x -- $never\nFROM a");
        assert_eq!(seen.binds.iter().map(String::as_str).collect::<Vec<_>>(), ["_x", "region"]);
        assert!(!seen.open && !seen.several && seen.verb == "select");
        assert!(glance("SELECT 'x").open);
        assert!(glance("SELECT /* x").open);
        assert!(glance("SELECT (1").open);
        assert!(glance("SELECT 1)").open);
        assert!(glance("SELECT 1; DROP TABLE x").several);
        assert!(!glance("SELECT 1;").several);
        assert_eq!(glance("/* x */ ((DELETE FROM a))").verb, "delete");
        assert_eq!(glance("").verb, "");
    }

    #[test]
    fn literals_are_read_as_written() {
        assert_eq!(literals("SELECT 'it''s', E'a\\'b', $q$ $x 'y' $q$"), ["it's", "a'b", " $x 'y' "]);
    }

    #[track_caller]
    fn replaced(sql: &str, wanted: &str) {
        let found = replace_binds(sql, |name| Ok::<_, ()>(format!("<{name}>")));
        assert_eq!(found.as_deref(), Ok(wanted));
    }

    #[test]
    fn binds_are_replaced_where_they_are_binds() {
        replaced("SELECT 1", "SELECT 1");
        replaced("$a", "<a>");
        replaced("SELECT $a::date, -$b_2, ($a)||'ü$a'", "SELECT <a>::date, -<b_2>, (<a>)||'ü$a'");
        replaced(r#"SELECT "$a", E'\'$a', 'b''$a' WHERE x=$a"#, r#"SELECT "$a", E'\'$a', 'b''$a' WHERE x=<a>"#);
        replaced("SELECT $$ $a $$, $q$ $a $$ $q$, $a", "SELECT $$ $a $$, $q$ $a $$ $q$, <a>");
        replaced("SELECT $a -- $a\n, $a /* $a /* */ $a */", "SELECT <a> -- $a\n, <a> /* $a /* */ $a */");
        replaced("SELECT * FROM sys.v$a WHERE b$=$a", "SELECT * FROM sys.v$a WHERE b$=<a>");
        assert_eq!(replace_binds("$a + $b", |name| if name == "b" { Err("b") } else { Ok(String::new()) }), Err("b"));
    }
}
