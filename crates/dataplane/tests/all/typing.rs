//! What `dagwright-task plan` says of SQL, from columns alone.

use std::collections::BTreeMap;

use dagwright_dataplane::typing::type_transform;
use dagwright_model::{
    code::Code,
    facts::{TransformTyping, TypingReply, TypingRequest},
    schema::Column,
    spec::{GateRule, Incremental, ParamType, Step},
    task::Problem,
};

use crate::memory::{block_on, columns, name};

fn flights() -> TypingRequest {
    let sources = [
        ("flights", "year:int64? carrier:string? flight:int64? delay:int64? origin:string(3)? at:timestamptz?"),
        ("airlines", "carrier:string? name:string?"),
    ];
    TypingRequest {
        sources: sources.map(|(source, has)| (name(source), columns(has))).into(),
        steps: Vec::new(),
        binds: BTreeMap::from([
            ("region".into(), ParamType::String),
            ("data_interval_start".into(), ParamType::Timestamp),
        ]),
        gates: Vec::new(),
        outputs: Vec::new(),
        incremental: BTreeMap::new(),
    }
}

fn request(steps: &[(&str, &str)], outputs: &[&str]) -> TypingRequest {
    let mut request = flights();
    request.steps = steps.iter().map(|(step, sql)| Step { name: name(step), sql: (*sql).into() }).collect();
    request.outputs = outputs.iter().map(|output| name(output)).collect();
    request
}

#[track_caller]
fn typed(request: &TypingRequest) -> TransformTyping {
    match block_on(type_transform(request)).unwrap() {
        TypingReply::Typed(typing) => typing,
        TypingReply::Failed(problems) => panic!("does not plan: {problems:#?}"),
    }
}

#[track_caller]
fn failed(request: &TypingRequest) -> Vec<Problem> {
    match block_on(type_transform(request)).unwrap() {
        TypingReply::Failed(problems) => problems,
        TypingReply::Typed(typing) => panic!("plans: {typing:#?}"),
    }
}

fn shown(columns: &[Column]) -> String {
    let one =
        |column: &Column| format!("{}:{}{}", column.name, column.data_type, if column.nullable { "?" } else { "" });
    columns.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check_columns(sql: &str, wanted: &str) {
    let typing = typed(&request(&[("s", sql)], &["s"]));
    assert_eq!(shown(&typing.steps[0].columns), wanted, "{sql}");
}

#[test]
fn steps_have_the_models_types() {
    check_columns("SELECT carrier, origin FROM flights", "carrier:string? origin:string(3)?");
    check_columns("SELECT upper(origin) AS o FROM flights", "o:string?");
    check_columns("SELECT count(*) AS n, avg(delay) AS d FROM flights", "n:int64 d:float64?");
    check_columns("SELECT $region AS r, at > $data_interval_start AS late FROM flights", "r:string? late:boolean?");
    check_columns("SELECT date_trunc('day', at) AS day, 1.5 AS x FROM flights", "day:timestamptz? x:float64");
    check_columns("SELECT CAST(delay AS DECIMAL(10,2)) AS d FROM flights", "d:decimal(10,2)?");
    check_columns(
        "SELECT f.*, a.name FROM flights f LEFT JOIN airlines a USING (carrier)",
        "year:int64? carrier:string? flight:int64? delay:int64? origin:string(3)? at:timestamptz? name:string?",
    );
}

#[track_caller]
fn check_shape(sql: &str, row_local: bool, blocking: bool) {
    let typing = typed(&request(&[("s", sql)], &["s"]));
    assert_eq!((typing.steps[0].row_local, typing.steps[0].blocking), (row_local, blocking), "{sql}");
}

#[test]
fn shapes_say_where_a_step_may_run() {
    check_shape("SELECT carrier FROM flights WHERE delay > 3", true, false);
    check_shape("SELECT carrier FROM (SELECT * FROM flights) x", true, false);
    check_shape("SELECT carrier FROM flights LIMIT 3", false, false);
    check_shape("SELECT DISTINCT carrier FROM flights", false, true);
    check_shape("SELECT carrier, count(*) AS n FROM flights GROUP BY carrier", false, true);
    check_shape("SELECT carrier, row_number() OVER (ORDER BY at) AS n FROM flights", false, true);
    check_shape("SELECT carrier FROM flights UNION ALL SELECT carrier FROM airlines", false, false);
    check_shape("SELECT flight FROM flights WHERE carrier IN (SELECT carrier FROM airlines)", false, true);
    check_shape("SELECT carrier FROM flights ORDER BY at", false, true);
}

#[test]
fn lineage_goes_through_steps_to_the_sources() {
    let typing = typed(&request(
        &[
            ("late", "SELECT flight, delay * 2 AS twice, carrier AS code FROM flights WHERE delay > 0"),
            (
                "named",
                "SELECT l.flight, l.twice, a.name, concat(l.code, a.name) AS both FROM late l LEFT JOIN airlines a ON a.carrier = l.code",
            ),
        ],
        &["named"],
    ));
    let named = &typing.steps[1];
    assert_eq!(named.inputs, [name("late"), name("airlines")]);
    let of = |column: &str| {
        named.lineage[column]
            .iter()
            .map(|from| format!("{}.{}", from.source, from.column))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(of("flight"), "flights.flight");
    assert_eq!(of("twice"), "flights.delay");
    assert_eq!(of("both"), "airlines.name flights.carrier");
    assert_eq!(named.passthrough.keys().collect::<Vec<_>>(), ["flight"], "the optional side is no longer as it was");
    let needed = |source: &str| typing.pushdown[source].columns.join(" ");
    assert_eq!(needed("flights"), "carrier flight delay");
    assert_eq!(typing.pushdown["flights"].filters, ["(\"delay\" > 0)"]);
    assert_eq!(needed("airlines"), "carrier name");
    assert!(typing.pushdown["airlines"].filters.is_empty());
}

#[test]
fn sources_are_narrowed_only_where_nothing_changes() {
    let needed = |steps: &[(&str, &str)]| {
        let last = steps[steps.len() - 1].0;
        let mut request = request(steps, &[last]);
        let incremental = Incremental { cursor: "at".into(), initial_value: None, lag: None };
        request.incremental = BTreeMap::from([(name("flights"), incremental)]);
        typed(&request).pushdown["flights"].columns.join(" ")
    };
    assert_eq!(needed(&[("s", "SELECT count(*) AS n FROM flights")]), "at");
    assert_eq!(needed(&[("a", "SELECT * FROM flights"), ("b", "SELECT flight FROM a")]), "flight at");
    // Named columns must be there even if nobody uses them in the end.
    assert_eq!(needed(&[("a", "SELECT flight, delay FROM flights"), ("b", "SELECT flight FROM a")]), "flight delay at");
    let all = "year carrier flight delay origin at";
    assert_eq!(needed(&[("a", "SELECT DISTINCT * FROM flights"), ("b", "SELECT flight FROM a")]), all);
    assert_eq!(needed(&[("a", "SELECT * FROM flights ORDER BY 4 LIMIT 3"), ("b", "SELECT flight FROM a")]), all);
}

#[test]
fn a_filter_is_pushed_only_where_every_reader_has_it() {
    let filters = |steps: &[(&str, &str)], outputs: &[&str]| {
        typed(&request(steps, outputs)).pushdown["flights"].filters.join("; ")
    };
    let late = ("late", "SELECT * FROM flights WHERE delay > 10 AND origin = 'JFK'");
    assert_eq!(filters(&[late], &["late"]), "(\"delay\" > 10); (origin = 'JFK')");
    assert_eq!(filters(&[late, ("early", "SELECT * FROM flights WHERE delay < 0")], &["late", "early"]), "");
    assert_eq!(filters(&[late], &["late", "flights"]), "");
    assert_eq!(filters(&[("s", "SELECT * FROM flights WHERE delay / flight > 10")], &["s"]), "");
    assert_eq!(filters(&[("s", "SELECT * FROM flights WHERE origin = $region")], &["s"]), "");
    let outer = "SELECT f.flight FROM airlines a LEFT JOIN flights f ON a.carrier = f.carrier AND f.delay > 1 WHERE a.name = 'x'";
    assert_eq!(filters(&[("s", outer)], &["s"]), "(\"delay\" > 1)");
}

#[test]
fn gates_need_their_columns_and_hold_back_filters() {
    let mut request = request(&[("s", "SELECT flight FROM flights WHERE delay > 1")], &["s"]);
    request.gates = vec![(name("g"), name("flights"), GateRule::NotNull(vec!["origin".into()]))];
    let typing = typed(&request);
    assert_eq!(typing.pushdown["flights"].columns.join(" "), "flight delay origin");
    assert!(typing.pushdown["flights"].filters.is_empty());
}

#[test]
fn every_problem_is_reported_once() {
    let mut request = request(
        &[
            ("good", "SELECT flight FROM flights"),
            ("bad", "SELECT nothing FROM flights"),
            ("follows", "SELECT * FROM bad"),
            ("worse", "SELECT flight FROM flights WHERE"),
            ("clash", "SELECT f.carrier, a.carrier FROM flights f, airlines a"),
            ("types", "SELECT flight FROM flights WHERE upper(delay, 3) = 1"),
        ],
        &["good", "gone"],
    );
    request.gates = vec![
        (name("g1"), name("good"), GateRule::Check("flight >".into())),
        (name("g2"), name("good"), GateRule::Unique(vec!["delay".into()])),
        (name("g3"), name("bad"), GateRule::NotNull(vec!["x".into()])),
        (name("g4"), name("good"), GateRule::Check("flight > 0".into())),
    ];
    let problems = failed(&request);
    let subjects: Vec<&str> = problems.iter().map(|problem| problem.subject.as_str()).collect();
    assert_eq!(subjects, ["bad", "worse", "clash", "types", "g1", "g2", "gone"]);
    assert!(problems.iter().all(|problem| problem.code == Code::SqlInvalid));
    assert!(problems[0].message.contains("nothing"), "{}", problems[0].message);
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    let request = request(
        &[(
            "s",
            "SELECT f.*, a.name FROM flights f JOIN airlines a USING (carrier) WHERE f.delay > 1 AND f.flight < 9",
        )],
        &["s"],
    );
    let text = || serde_json::to_string(&typed(&request)).unwrap();
    assert_eq!(text(), text());
}
