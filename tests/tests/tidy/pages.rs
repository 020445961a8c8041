//! Every error code has its page, and the index lists them all.

use std::{env, fmt::Write, fs};

use dagwright_model::code::Code;
use dagwright_tests::repository;

use crate::{assert_none, files};

/// The index's headings, by the hundreds of the codes.
const CLASSES: [(u16, &str); 9] = [
    (1, "The spec"),
    (2, "Negotiation"),
    (3, "Sources"),
    (4, "Sinks"),
    (5, "Transforms and quality"),
    (6, "Running"),
    (7, "This program"),
    (8, "The service"),
    (9, "Airflow"),
];

#[test]
fn every_code_has_its_page() {
    let mut findings = Vec::new();
    for code in Code::ALL {
        let path = format!("docs/errors/{code}.md");
        let Ok(text) = fs::read_to_string(repository().join(&path)) else {
            findings.push(format!("{path} is missing"));
            continue;
        };
        if text.lines().next() != Some(&format!("# {code}: {}", code.title())) {
            findings.push(format!("{path} does not start with `# {code}: {}`", code.title()));
        }
        for part in ["**Cause.**", "**Effect.**", "**Remedy.**"] {
            if text.matches(part).count() != 1 {
                findings.push(format!("{path} has not one {part}"));
            }
        }
    }
    let known = |name: &str| name == "README" || Code::ALL.iter().any(|code| code.to_string() == name);
    let pages = files().into_iter().filter_map(|file| Some(file.path.strip_prefix("docs/errors/")?.to_owned()));
    let unknown = pages.filter(|page| !page.strip_suffix(".md").is_some_and(known));
    findings.extend(unknown.map(|page| format!("docs/errors/{page} belongs to no code")));
    assert_none("error pages", findings);
}

#[test]
fn the_index_of_errors_is_current() {
    let mut wanted = String::from(
        "# Error codes\n\nEvery error that Dagwright shows has a code of its own. A code never changes its meaning, and is never used again.\n\
         The exit code is that of `dagwright-task`; 11 and 12 are tried again, the others fail at once.\n",
    );
    for (class, heading) in CLASSES {
        write!(wanted, "\n## {heading}\n\n| code | what | exit |\n|---|---|---|\n").unwrap();
        for code in Code::ALL.iter().filter(|code| code.number() / 100 == class) {
            writeln!(wanted, "| [{code}]({code}.md) | {} | {} |", code.title(), code.exit().number()).unwrap();
        }
    }
    let path = repository().join("docs/errors/README.md");
    if env::var_os("DAGWRIGHT_BLESS").is_some() {
        fs::write(&path, &wanted).expect("the index is writable");
    }
    let current = fs::read_to_string(&path).is_ok_and(|text| text == wanted);
    assert!(
        current,
        "docs/errors/README.md is stale: DAGWRIGHT_BLESS=1 cargo test -p dagwright-tests --test tidy index"
    );
}

#[test]
fn codes_in_texts_exist() {
    let mut findings = Vec::new();
    for file in files().iter().filter(|file| file.path.ends_with(".md")) {
        for (at, _) in file.text.match_indices("DW0") {
            let code: String = file.text[at..].chars().take(6).collect();
            let is_code = code.len() == 6 && code[2..].bytes().all(|byte| byte.is_ascii_digit());
            if is_code && !Code::ALL.iter().any(|known| known.to_string() == code) {
                findings.push(format!("{} speaks of {code}", file.path));
            }
        }
    }
    assert_none("codes that do not exist", findings);
}
