//! Every type survives the way into a table and back.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use dagwright_dataplane::types::arrow_schema;
use dagwright_model::{schema::Column, spec::SinkMode};
use proptest::{
    prelude::{Strategy, any},
    strategy::ValueTree,
    test_runner::TestRunner,
};

use crate::harness::{Db, columns, run};

/// Microseconds from 4713 BC to the last that 64 bits hold.
const MICROS: std::ops::Range<i64> = -210_866_803_200_000_000..i64::MAX;

/// Days from 4713 BC to 5874897 AD.
const DAYS: std::ops::Range<i32> = -2_440_588..2_145_031_948;

fn sealed() -> Vec<Column> {
    columns(&[
        ("boolean", "boolean"),
        ("int16", "int16"),
        ("int32", "int32"),
        ("int64", "int64"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("decimal(38,0)", "decimal(38,0)"),
        ("decimal(12,2)", "decimal(12,2)"),
        ("decimal(38,37)", "decimal(38,37)"),
        ("string", "string"),
        ("string(8)", "string(8)"),
        ("binary", "binary"),
        ("date", "date"),
        ("time", "time"),
        ("timestamp", "timestamp"),
        ("timestamptz", "timestamptz"),
        ("uuid", "uuid"),
        ("json", "json"),
        ("list<string>", "list<string>"),
    ])
}

/// Draws values, one in five of them NULL.
fn draw<T: std::fmt::Debug>(runner: &mut TestRunner, rows: usize, values: impl Strategy<Value = T>) -> Vec<Option<T>> {
    let values = proptest::option::weighted(0.8, values);
    (0..rows).map(|_| values.new_tree(runner).unwrap().current()).collect()
}

fn decimals(runner: &mut TestRunner, rows: usize, precision: u8, scale: i8) -> ArrayRef {
    let limit = 10_i128.pow(u32::from(precision));
    let values = draw(
        runner,
        rows,
        (any::<i128>(), 0..=u32::from(precision))
            .prop_map(move |(value, digits)| value % 10_i128.pow(digits).min(limit)),
    );
    Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
}

fn batch(runner: &mut TestRunner, rows: usize) -> RecordBatch {
    // Zero is the one character that PostgreSQL's text does not hold.
    let text = || "[^\0]{0,20}";
    let mut lists = ListBuilder::new(StringBuilder::new());
    for list in draw(runner, rows, proptest::collection::vec(proptest::option::of(text()), 0..4)) {
        lists.append_option(list);
    }
    let uuids = draw(runner, rows, any::<[u8; 16]>());
    let uuids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids.into_iter(), 16).unwrap();
    let json = draw(runner, rows, any::<i64>().prop_map(|value| format!("{{\"a\": [{value}, null, \"x\"]}}")));
    let binary = draw(runner, rows, proptest::collection::vec(any::<u8>(), 0..20));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(draw(runner, rows, any::<bool>()))),
        Arc::new(Int16Array::from(draw(runner, rows, any::<i16>()))),
        Arc::new(Int32Array::from(draw(runner, rows, any::<i32>()))),
        Arc::new(Int64Array::from(draw(runner, rows, any::<i64>()))),
        Arc::new(Float32Array::from(draw(runner, rows, any::<f32>()))),
        Arc::new(Float64Array::from(draw(runner, rows, any::<f64>()))),
        decimals(runner, rows, 38, 0),
        decimals(runner, rows, 12, 2),
        decimals(runner, rows, 38, 37),
        Arc::new(StringArray::from(draw(runner, rows, text()))),
        Arc::new(StringArray::from(draw(runner, rows, "[^\0]{0,8}"))),
        Arc::new(BinaryArray::from_iter(binary)),
        Arc::new(Date32Array::from(draw(runner, rows, DAYS))),
        Arc::new(Time64MicrosecondArray::from(draw(runner, rows, 0..86_400_000_000_i64))),
        Arc::new(TimestampMicrosecondArray::from(draw(runner, rows, MICROS))),
        Arc::new(TimestampMicrosecondArray::from(draw(runner, rows, MICROS)).with_timezone("UTC")),
        Arc::new(uuids),
        Arc::new(StringArray::from(json)),
        Arc::new(lists.finish()),
    ];
    RecordBatch::try_new(arrow_schema(&sealed()), columns).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_survives_the_way_into_a_table_and_back() {
    let db = Db::new("round_trip").await;
    let write = db.write("t", SinkMode::Replace, &sealed());
    let read = db.read(db.locator("t"), &sealed());
    // The same cases every time: what fails here must fail everywhere.
    let mut runner = TestRunner::deterministic();
    for case in 0..12 {
        let rows = batch(&mut runner, case * 40);
        db.load(&write, run(&format!("r{case}")), std::slice::from_ref(&rows)).await.unwrap();
        let found = db.fetch(&read, run("r")).await.unwrap().rows;
        for (index, column) in sealed().iter().enumerate() {
            assert_eq!(found.column(index), rows.column(index), "{} in case {case}", column.name);
        }
    }
    let types = "SELECT string_agg(format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 'round_trip.t'::regclass AND attnum > 0";
    assert_eq!(
        db.one(types).await.unwrap(),
        "boolean, smallint, integer, bigint, real, double precision, numeric(38,0), numeric(12,2), numeric(38,37), \
         text, character varying(8), bytea, date, time without time zone, timestamp without time zone, \
         timestamp with time zone, uuid, jsonb, text[]"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_reads_values_as_meant() {
    let db = Db::new("meaning").await;
    let sealed = columns(&[
        ("a", "decimal(9,2)"),
        ("b", "date"),
        ("c", "timestamptz"),
        ("d", "list<int32>"),
        ("e", "struct<x:int32,y:string>"),
    ]);
    let schema = arrow_schema(&sealed);
    let list =
        arrow::array::ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>([Some([Some(1), None])]);
    let arrow::datatypes::DataType::Struct(fields) = schema.field(4).data_type().clone() else { panic!() };
    let x: ArrayRef = Arc::new(Int32Array::from(vec![7]));
    let y: ArrayRef = Arc::new(StringArray::from(vec!["a\"b"]));
    let cells: Vec<ArrayRef> = vec![
        Arc::new(Decimal128Array::from(vec![-12_345]).with_precision_and_scale(9, 2).unwrap()),
        Arc::new(Date32Array::from(vec![19_782])),
        Arc::new(TimestampMicrosecondArray::from(vec![1_709_164_800_000_001]).with_timezone("UTC")),
        Arc::new(list),
        Arc::new(arrow::array::StructArray::new(fields, vec![x, y], None)),
    ];
    let rows = RecordBatch::try_new(schema, cells).unwrap();
    db.load(&db.write("t", SinkMode::Replace, &sealed), run("r"), &[rows]).await.unwrap();
    assert_eq!(
        db.one("SELECT concat_ws('|', a, b, c AT TIME ZONE 'UTC', d, e) FROM t").await.unwrap(),
        "-123.45|2024-02-29|2024-02-29 00:00:00.000001|{1,NULL}|{\"x\": 7, \"y\": \"a\\\"b\"}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn types_of_the_server_read_as_their_nearest() {
    let db = Db::new("foreign_types").await;
    db.run(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN cents AS numeric(9,2);
        CREATE TABLE t AS SELECT 'ok'::mood AS a, 1.5::cents AS b, 'x'::char(3) AS c, interval '1 day' AS d,
          '10.0.0.1'::inet AS e, point(1, 2) AS f, 123.450::numeric AS g, '{sad,ok}'::mood[] AS h, 42::oid AS i,
          '12:30+02'::timetz AS j, ARRAY[1.5, 2]::numeric(5,2)[] AS k, 7::int2 AS l, 1.25::numeric AS m",
    )
    .await;
    let sealed = columns(&[
        ("a", "string"),
        ("b", "decimal(9,2)"),
        ("c", "string(3)"),
        ("d", "string"),
        ("e", "string"),
        ("f", "string"),
        ("g", "string"),
        ("i", "int64"),
        ("j", "string"),
        ("k", "list<decimal(5,2)>"),
        ("l", "int64"),
        ("m", "decimal(38,5)"),
    ]);
    let rows = db.fetch(&db.read(db.locator("t"), &sealed), run("r")).await.unwrap().rows;
    let texts: Vec<String> = (0..rows.num_columns())
        .map(|index| arrow::util::display::array_value_to_string(rows.column(index), 0).unwrap())
        .collect();
    assert_eq!(
        texts,
        [
            "ok",
            "1.50",
            "x  ",
            "P1D",
            "10.0.0.1/32",
            "(1,2)",
            "123.450",
            "42",
            "12:30:00+02",
            "[1.50, 2.00]",
            "7",
            "1.25000"
        ]
    );
}
