//! What a sink refuses, and how it says so.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use dagwright_dataplane::{
    connectors::{Sink, postgres::PostgresSink},
    types::arrow_schema,
};
use dagwright_model::{
    schema::Column,
    spec::SinkMode,
    task::{SchemaEdit, SinkWrite},
};

use crate::harness::{Db, columns, id_note, name, refused, rows, run};

fn existing(write: SinkWrite) -> SinkWrite {
    SinkWrite { changes: Vec::new(), meta_columns: false, ..write }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changed_is_drift() {
    let db = Db::new("drift").await;
    for (ddl, why) in [
        ("CREATE TABLE target (id bigint)", "a column is gone"),
        ("CREATE TABLE target (id integer, note text)", "a type is narrower"),
        ("CREATE TABLE target (id bigint, note text, more text NOT NULL)", "a column must be written"),
        ("CREATE TABLE target (id bigint, note text GENERATED ALWAYS AS ('x') STORED)", "a column is generated"),
        ("CREATE VIEW target AS SELECT 1::bigint AS id, 'a'::text AS note", "a view"),
        ("SELECT 1", "no table"),
    ] {
        db.run(&format!("BEGIN; {ddl}; COMMIT")).await;
        let write = existing(db.write("target", SinkMode::Append, &id_note()));
        let result = db.load(&write, run(why), &[rows(&[(1, "a")])]).await;
        refused(result, "DW0403", &[]);
        db.run(
            "DROP VIEW IF EXISTS drift.none; DO $$ BEGIN
            IF (SELECT relkind FROM pg_class WHERE oid = to_regclass('drift.target')) = 'v'
            THEN DROP VIEW drift.target; ELSE DROP TABLE IF EXISTS drift.target; END IF; END $$",
        )
        .await;
    }
    let upsert = existing(db.write("target", SinkMode::Upsert, &id_note()));
    db.run("CREATE TABLE target (id bigint, note text)").await;
    refused(db.load(&upsert, run("no key"), &[rows(&[(1, "a")])]).await, "DW0403", &[]);
    let nowhere = SinkWrite {
        locator: dagwright_model::spec::Locator::Table {
            connection: name(crate::harness::CONNECTION),
            table: "no_such_schema.target".to_owned().try_into().unwrap(),
        },
        ..upsert
    };
    refused(db.load(&nowhere, run("no schema"), &[]).await, "DW0403", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_are_told_without_their_values() {
    let db = Db::new("refused").await;
    for (index, (definition, note)) in [
        ("id bigint, note text NOT NULL", None),
        ("id bigint, note varchar(3)", Some("secret")),
        ("id bigint, note text CHECK (note <> 'secret')", Some("secret")),
        ("id bigint, note text UNIQUE, CHECK (id > 0)", Some("secret")),
        ("id bigint, note text REFERENCES refused.parent", Some("secret")),
    ]
    .into_iter()
    .enumerate()
    {
        db.run("CREATE TABLE IF NOT EXISTS parent (note text PRIMARY KEY)").await;
        db.run(&format!("CREATE TABLE t{index} ({definition})")).await;
        let mut write = existing(db.write(&format!("t{index}"), SinkMode::Append, &id_note()));
        // What the table takes for a column that was sealed without a length.
        write.columns[1].data_type = if index == 1 { "string(3)".parse().unwrap() } else { "string".parse().unwrap() };
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![987_654, 987_654]));
        let notes: ArrayRef = Arc::new(StringArray::from(vec![note, note]));
        let batch = RecordBatch::try_new(arrow_schema(&id_note()), vec![ids, notes]).unwrap();
        let error =
            refused(db.load(&write, run(&format!("r{index}")), &[batch]).await, "DW0404", &["secret", "987654"]);
        assert!(error.to_string().contains("SQLSTATE"), "{error}");
        assert_eq!(db.count(&format!("t{index}")).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_beyond_the_types_range_are_refused() {
    let db = Db::new("range").await;
    let write = db.write("target", SinkMode::Append, &columns(&[("at", "timestamp")]));
    for micros in [i64::MIN, i64::MIN + 946_684_800_000_000, -300_000_000_000_000_000] {
        let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![micros]));
        let batch = RecordBatch::try_new(arrow_schema(&write.columns), vec![at]).unwrap();
        let value = micros.to_string();
        refused(db.load(&write, run(&value), &[batch]).await, "DW0404", &[&value]);
    }
    let zero = rows(&[(1, "a\0b")]);
    let text = db.write("text", SinkMode::Append, &id_note());
    refused(db.load(&text, run("zero"), &[zero]).await, "DW0404", &["a\0b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn planned_changes_are_made_once_and_judged_anew() {
    let db = Db::new("edits").await;
    db.run("CREATE TABLE target (id integer NOT NULL, extra text NOT NULL); INSERT INTO target VALUES (1, 'x')").await;
    let mut write = existing(db.write("target", SinkMode::Upsert, &id_note()));
    let [id, note] = &id_note()[..] else { panic!() };
    write.changes = vec![
        SchemaEdit::AddColumn(note.clone()),
        SchemaEdit::WidenColumn(id.clone()),
        SchemaEdit::DropNotNull("extra".into()),
        SchemaEdit::AddUniqueKey(vec!["id".into()]),
    ];
    for effect in ["r1", "r2"] {
        db.load(&write, run(effect), &[rows(&[(1, effect), (2, "b")])]).await.unwrap();
    }
    assert_eq!(db.one("SELECT string_agg(id || note, ',' ORDER BY id) FROM target").await.unwrap(), "1r2,2b");
    let indexes = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'edits' AND tablename = 'target'";
    assert_eq!(db.one(indexes).await.unwrap(), "1");
    // Wider than planned for would lose something.
    let narrow = Column { data_type: "int16".parse().unwrap(), ..id.clone() };
    write.changes = vec![SchemaEdit::WidenColumn(narrow.clone())];
    write.columns[0] = Column { data_type: "string".parse().unwrap(), ..narrow };
    refused(db.load(&write, run("r3"), &[]).await, "DW0403", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_stay_names() {
    let db = Db::new("hostile \"; DROP TABLE x; --").await;
    let long = "ü".repeat(31) + "x";
    assert_eq!(long.len(), 63);
    for table in ["Robert'); DROP TABLE students;--", "select", "ünïcödé 表", &long, "a$$b", "%s{}\\"] {
        let mut columns = id_note();
        columns[1].name = format!("{}\"'); --", &table[..2]);
        let batch = rows(&[(1, "a")]);
        let batch = RecordBatch::try_new(arrow_schema(&columns), batch.columns().to_vec()).unwrap();
        for mode in [SinkMode::Append, SinkMode::Replace, SinkMode::Upsert] {
            let name = format!("{table}{}", if table.len() > 60 { "" } else { "u" });
            let write = db.write(if mode == SinkMode::Upsert { &name } else { table }, mode, &columns);
            let write = SinkWrite { meta_columns: false, ..write };
            if mode == SinkMode::Upsert && name == table {
                continue;
            }
            db.load(&write, run(&format!("{table}'\"; DROP TABLE x; -- {mode:?}")), std::slice::from_ref(&batch))
                .await
                .unwrap();
        }
        let read = db.read(db.locator(table), &columns);
        assert_eq!(db.fetch(&read, run("read")).await.unwrap().rows, batch);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_without_a_binary_form_are_cast_by_the_server() {
    let db = Db::new("casts").await;
    db.run(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN short AS varchar(5);
        CREATE TABLE target (id bigint, host inet, took interval, feeling mood, tag short, loose numeric)",
    )
    .await;
    let texts = ["id", "host", "took", "feeling", "tag"];
    let mut written: Vec<Column> = columns(&texts.map(|name| (name, "string")));
    written[0].data_type = "int64".parse().unwrap();
    written[4].data_type = "string(5)".parse().unwrap();
    written.push(columns(&[("loose", "decimal(30,20)")])[0].clone());
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let loose =
        arrow::array::Decimal128Array::from(vec![125 * 10_i128.pow(18)]).with_precision_and_scale(30, 20).unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let cells = vec![ids, text("10.0.0.1"), text("P1DT2H"), text("ok"), text("abc"), Arc::new(loose) as ArrayRef];
    let batch = RecordBatch::try_new(arrow_schema(&written), cells).unwrap();
    let write = existing(db.write("target", SinkMode::Append, &written));
    db.load(&write, run("r1"), &[batch]).await.unwrap();
    let row = db.one("SELECT target::text FROM target").await.unwrap();
    assert_eq!(row, "(1,10.0.0.1,\"1 day 02:00:00\",ok,abc,1.25)");
    let sink = PostgresSink::new();
    let inspected =
        sink.inspect(&name("sink"), &write.locator, None, SinkMode::Append, &run("r"), &db.environment).await;
    let types: Vec<String> =
        inspected.unwrap().columns.iter().map(|found| found.column.data_type.to_string()).collect();
    assert_eq!(types, ["int64", "string", "string", "string", "string(5)", "decimal(38,10)"]);
}
