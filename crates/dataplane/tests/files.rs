//! Files on a local disk: the conformance suite, and what only text files have.

#[path = "suite/files.rs"]
mod suite;

use std::{collections::BTreeMap, fs, io::Write, path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{Float64Type, Int32Type, Int64Type},
};
use dagwright_dataplane::types::arrow_schema;
use dagwright_model::{
    code::Code,
    facts::{TextCompression, TextProfile},
    schema::{Column, DataType},
    spec::{
        ColumnSpec, CsvOptions, Encoding, FileFormat, Incremental, Interval, Locator, LossyCast, Mask, OnMissing,
        Ragged,
    },
    task::{IncrementalRead, RunContext, SourceRead},
};
use proptest::prelude::{Strategy, any, prop};
use suite::{
    Found, Place, assert_same, code_of, columns, conformance, profile, profile_of, read, read_context, read_with, run,
    sink_write, source_read, text_profile, write,
};

/// A folder that goes with the test.
struct Folder {
    _folder: tempfile::TempDir,
    place: Place,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().to_str().unwrap().to_owned();
        Self { _folder: folder, place: Place { root: String::new(), base: Some(base) } }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.place.base.as_deref().unwrap())
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

fn csv(text: impl AsRef<[u8]>, read: &SourceRead) -> dagwright_dataplane::error::Result<Found> {
    let folder = Folder::new();
    folder.put("rows.csv", text);
    block_on(suite::read(&folder.place, read))
}

fn csv_read(columns: Vec<Column>) -> SourceRead {
    source_read("rows.csv", FileFormat::Csv, columns)
}

fn texts(array: &ArrayRef) -> Vec<Option<&str>> {
    array.as_string::<i32>().iter().collect()
}

#[test]
fn local_files_keep_every_promise() {
    let folder = Folder::new();
    block_on(conformance(folder.place.clone()));
    let absolute = Place { root: format!("file://{}/absolute/", folder.place.base.as_deref().unwrap()), base: None };
    block_on(conformance(absolute));
}

#[test]
fn nothing_temporary_is_left() {
    let folder = Folder::new();
    let place = &folder.place;
    let sink = sink_write("out/", FileFormat::Parquet, suite::id_columns());
    block_on(write(&sink, run(place.base.clone()), &[suite::ids(0, 10)])).unwrap();
    let mut names: Vec<_> = fs::read_dir(folder.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names[0], "_dagwright");
    assert!(names[1].starts_with("part-") && names[1].ends_with("-0-0.parquet"), "{names:?}");
}

#[test]
fn csv_fields_become_values() {
    let columns = columns(&[("a", "int64"), ("b", "string"), ("c", "float64")]);
    let text = "a,b,c\r\n1,\"x, \"\"y\"\"\n\",0.5\r\n,,\r\n-3,\"\",1e3";
    let found = csv(text, &csv_read(columns)).unwrap();
    assert_eq!(found.batch.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(1), None, Some(-3)]);
    assert_eq!(texts(found.batch.column(1)), [Some("x, \"y\"\n"), None, Some("")]);
    assert_eq!(
        found.batch.column(2).as_primitive::<Float64Type>().iter().collect::<Vec<_>>(),
        [Some(0.5), None, Some(1000.0)]
    );
    assert_eq!(found.counts.bytes, text.len() as u64);
}

#[test]
fn columns_are_found_by_name_and_the_rest_passed_over() {
    let columns = columns(&[("c", "int32"), ("a", "int32")]);
    let found = csv("a,b,c\n1,x,3\n", &csv_read(columns.clone())).unwrap();
    assert_eq!(found.batch.column(0).as_primitive::<Int32Type>().value(0), 3);
    assert_eq!(found.batch.column(1).as_primitive::<Int32Type>().value(0), 1);
    assert_eq!(code_of(csv("a,b\n1,2\n", &csv_read(columns.clone()))), Code::SourceDrifted);
    let mut headless = csv_read(columns);
    headless.text = Some(TextProfile { header: false, ..text_profile() });
    headless.positions = vec!["a".into(), "b".into(), "c".into()];
    let found = csv("1,x,3\n", &headless).unwrap();
    assert_eq!(found.batch.column(0).as_primitive::<Int32Type>().value(0), 3);
    let none = csv_read(Vec::new());
    assert_eq!(csv("a,b\n1,2\n3,4\n", &none).unwrap().batch.num_rows(), 2);
}

#[test]
fn ragged_records_follow_the_policy() {
    let text = "a,b\n1,2\n3\n4,5,6\n7,8\n";
    let with = |ragged| SourceRead { ragged, ..csv_read(columns(&[("a", "int64"), ("b", "int64")])) };
    let error = csv(text, &with(Ragged::Fail)).unwrap_err();
    assert_eq!(error.code(), Code::SourceMalformed);
    assert!(error.to_string().contains("rows.csv:3"), "{error}");
    let found = csv(text, &with(Ragged::Quarantine)).unwrap();
    assert_eq!((found.counts.read, found.counts.passed, found.counts.quarantined), (4, 2, 2));
    let positions: Vec<_> = found.rejects.iter().map(|reject| reject.position.as_deref().unwrap()).collect();
    assert_eq!(positions, ["rows.csv:3", "rows.csv:4"]);
    assert_eq!(found.rejects[0].values["a"], "3");
    assert_eq!(code_of(csv(text, &with(Ragged::Fill))), Code::SourceMalformed);
    let found = csv("a,b\n1,2\n3\n", &with(Ragged::Fill)).unwrap();
    assert!(found.batch.column(1).is_null(1));
}

#[test]
fn misfits_follow_the_policy() {
    let text = "a,b\n1,x\nsecret,y\n3,z\n";
    let with = |lossy| SourceRead { lossy, ..csv_read(columns(&[("a", "int32"), ("b", "string")])) };
    let error = csv(text, &with(LossyCast::Reject)).unwrap_err();
    assert_eq!(error.code(), Code::CastFailed);
    assert!(error.to_string().contains("rows.csv:3") && !error.to_string().contains("secret"), "{error}");
    let found = csv(text, &with(LossyCast::Null)).unwrap();
    assert!(found.batch.column(0).is_null(1));
    assert_eq!((found.counts.passed, found.counts.nulled), (3, 1));
    let found = csv(text, &with(LossyCast::Quarantine)).unwrap();
    assert_eq!((found.counts.passed, found.counts.quarantined), (2, 1));
    assert_eq!(found.rejects[0].reason, "column \"a\": not an int32");
    assert_eq!(found.rejects[0].values["a"], "secret");
    let classified = SourceRead { classified: vec!["a".into()], ..with(LossyCast::Quarantine) };
    let found = csv(text, &classified).unwrap();
    assert!(!found.rejects[0].values.contains_key("a"));
}

#[test]
fn a_null_where_the_plan_has_none_is_drift() {
    let mut read = csv_read(columns(&[("a", "int32"), ("b", "string")]));
    read.columns[0].nullable = false;
    assert_eq!(code_of(csv("a,b\n,x\n", &read)), Code::SourceDrifted);
    read.lossy = LossyCast::Quarantine;
    assert_eq!(csv("a,b\n,x\n1,y\n", &read).unwrap().counts.quarantined, 1);
}

#[test]
fn null_texts_are_null_unless_quoted() {
    let mut read = csv_read(columns(&[("a", "int32"), ("b", "string")]));
    read.null_values = vec!["NA".into()];
    let found = csv("a,b\nNA,NA\n1,\"NA\"\n,\n", &read).unwrap();
    assert_eq!(texts(found.batch.column(1)), [None, Some("NA"), Some("")]);
    assert_eq!(found.batch.column(0).null_count(), 2);
}

#[test]
fn encodings_and_compressions_are_read() {
    let text = "a,b\n1,Grüße €\n2,\"é\nà\"\n";
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let utf16 =
        |unit: fn(u16) -> [u8; 2]| [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(unit).collect::<Vec<u8>>();
    let members = [gzip(&text.as_bytes()[..10]), gzip(&text.as_bytes()[10..])].concat();
    let frames =
        [zstd::encode_all(&text.as_bytes()[..7], 1).unwrap(), zstd::encode_all(&text.as_bytes()[7..], 1).unwrap()]
            .concat();
    for (bytes, encoding, compression) in [
        (text.as_bytes().to_vec(), Encoding::Utf8, TextCompression::None),
        ([b"\xef\xbb\xbf", text.as_bytes()].concat(), Encoding::Utf8, TextCompression::None),
        (utf16(u16::to_le_bytes), Encoding::Utf16Le, TextCompression::None),
        (utf16(u16::to_be_bytes), Encoding::Utf16Be, TextCompression::None),
        (encoding_rs::WINDOWS_1252.encode(text).0.into_owned(), Encoding::Latin1, TextCompression::None),
        (members, Encoding::Utf8, TextCompression::Gzip),
        (frames, Encoding::Utf8, TextCompression::Zstd),
        (gzip(&utf16(u16::to_le_bytes)), Encoding::Utf16Le, TextCompression::Gzip),
    ] {
        let folder = Folder::new();
        folder.put("rows.csv", &bytes);
        let facts = block_on(profile(&folder.place, "rows.csv", &[])).unwrap();
        let text = facts.text.clone().unwrap();
        assert_eq!((text.encoding, text.compression), (encoding, compression));
        let mut source = csv_read(facts.columns.into_iter().map(|column| column.column).collect());
        source.text = Some(text);
        let found = block_on(read(&folder.place, &source)).unwrap();
        assert_eq!(texts(found.batch.column(1)), [Some("Grüße €"), Some("é\nà")], "{encoding:?} {compression:?}");
        assert_eq!(found.counts.bytes, bytes.len() as u64);
    }
}

#[test]
fn bad_input_is_told() {
    let read = csv_read(columns(&[("a", "string")]));
    let long = [b"a\n\"".to_vec(), vec![b'x'; 40 << 20]].concat();
    let mut cut = zstd::encode_all(&b"a\n1\n2\n"[..], 1).unwrap();
    cut.truncate(cut.len() - 3);
    for (text, wanted) in [
        (&b"a\n\xff\xfe\xfd\n"[..], Code::SourceMalformed),
        (b"a\nb\0c\n", Code::SourceMalformed),
        (b"a\n\"open\nnever closed", Code::SourceMalformed),
        (&long, Code::RecordTooLong),
        (&cut, Code::SourceMalformed),
        (b"\x1f\x8bnot gzip at all", Code::SourceMalformed),
    ] {
        assert_eq!(code_of(csv(text, &read)), wanted, "{:?}", String::from_utf8_lossy(&text[..text.len().min(30)]));
    }
    let folder = Folder::new();
    folder.put("junk.csv", (0..=255).cycle().take(10_000).collect::<Vec<u8>>());
    folder.put("empty.csv", "");
    folder.put("junk.parquet", "no parquet");
    folder.put("array.json", "[{\"a\":1}]");
    for (file, wanted) in
        [("junk.csv", Code::SourceMalformed), ("empty.csv", Code::SourceEmpty), ("junk.parquet", Code::SourceMalformed)]
    {
        assert_eq!(code_of(block_on(profile(&folder.place, file, &[]))), wanted, "{file}");
    }
    let mut nobody = csv_read(columns(&[("a", "string")]));
    nobody.locator = Locator::Uri("/dev/null/x.csv".into());
    assert!(block_on(suite::read(&folder.place, &nobody)).is_err());
    let based = Place { root: String::new(), base: None };
    assert_eq!(code_of(block_on(suite::read(&based, &read))), Code::SpecBadUri);
}

#[test]
fn a_file_that_changes_is_noticed() {
    let folder = Folder::new();
    folder.put("rows.csv", format!("a\n{}", "1\n".repeat(20 << 20)));
    let source = csv_read(columns(&[("a", "int64")]));
    let error = block_on(async {
        let (context, _received) = read_context(run(folder.place.base.clone()), 1);
        let (_, mut streams) = dagwright_dataplane::connectors::Source::open(
            &dagwright_dataplane::connectors::files::FileSource::new(),
            &source,
            &context,
        )
        .await
        .unwrap();
        let mut stream = streams.pop().unwrap();
        futures::StreamExt::next(&mut stream).await.unwrap().unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(folder.path("rows.csv")).unwrap();
        file.write_all(b"2\n").unwrap();
        loop {
            match futures::StreamExt::next(&mut stream).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("the change went unnoticed"),
            }
        }
    });
    assert_eq!(error.code(), Code::SourceChanged);
}

#[test]
fn masks_hide_values() {
    let mut read = csv_read(columns(&[("a", "string"), ("b", "string"), ("c", "string")]));
    read.masks = BTreeMap::from([("a".into(), Mask::Hmac), ("b".into(), Mask::Redact), ("c".into(), Mask::Null)]);
    let found = csv("a,b,c\nx,y,z\nx,,z\n,y,\n", &read).unwrap();
    let digest = texts(found.batch.column(0));
    // printf x | openssl dgst -sha256 -hmac key
    assert_eq!(digest[0], Some("4fc3b7eaf34d7e594a6f51d9517ba543abf41067b27587ffd82ba3584e4d3cdd"));
    assert_eq!((digest[0].unwrap().len(), digest[0] == digest[1], digest[2]), (64, true, None));
    assert_eq!(texts(found.batch.column(1)), [Some("***"), None, Some("***")]);
    assert_eq!(found.batch.column(2).null_count(), 3);
    let folder = Folder::new();
    folder.put("rows.csv", "a,b,c\nx,y,z\n");
    let error = block_on(async {
        let (mut context, received) = read_context(run(folder.place.base.clone()), 1);
        context.environment = Arc::default();
        read_with(&read, context, received).await
    });
    assert_eq!(code_of(error), Code::MaskKeyMissing);
}

fn incremental(initial: Option<&str>) -> IncrementalRead {
    IncrementalRead {
        incremental: Incremental { cursor: "day".into(), initial_value: initial.map(Into::into), lag: None },
        data_type: DataType::Date,
        committed_in: Vec::new(),
    }
}

#[test]
fn cursors_bound_the_reading() {
    let folder = Folder::new();
    folder.put("rows.csv", "day,n\n2013-01-01,1\n2013-01-02,2\n2013-01-03,x\n2013-01-01,y\n2013-01-04,4\n");
    let mut source = csv_read(columns(&[("day", "date"), ("n", "int64")]));
    source.lossy = LossyCast::Quarantine;
    source.incremental = Some(incremental(Some("2013-01-01")));
    let read_after = |after: Option<&str>, backfill: bool| {
        let interval =
            backfill.then(|| Interval { start: "2013-01-02T00:00:00Z".into(), end: "2013-01-04T00:00:00Z".into() });
        let run = RunContext { backfill, interval, ..run(folder.place.base.clone()) };
        let (mut context, received) = read_context(run, 1);
        context.after_cursor = after.map(Into::into);
        let found = block_on(read_with(&source, context, received)).unwrap();
        (found.counts.passed, found.counts.quarantined, found.counts.skipped)
    };
    assert_eq!(read_after(None, false), (2, 1, 2));
    assert_eq!(read_after(Some("2013-01-02"), false), (1, 1, 3));
    assert_eq!(read_after(Some("2013-01-03T12:00:00Z"), false), (1, 0, 4));
    assert_eq!(read_after(Some("2013-01-04"), true), (1, 1, 3), "a backfill goes by the interval");
    folder.put("rows.csv", "day,n\n,1\n");
    let (context, received) = read_context(run(folder.place.base.clone()), 1);
    assert_eq!(code_of(block_on(read_with(&source, context, received))), Code::CursorInvalid);
}

#[test]
fn filters_pass_rows_over() {
    let text = "a,b\n1,x\n2,y\n3,\n";
    for (filter, wanted) in [
        ("a > 1", vec![2, 3]),
        ("\"b\" = 'x' OR a = 3", vec![1, 3]),
        ("rows.a <> 2 AND b IS NOT NULL", vec![1]),
        ("a > $least", vec![1, 2, 3]),
    ] {
        let read = SourceRead { filters: vec![filter.into()], ..csv_read(columns(&[("a", "int64"), ("b", "string")])) };
        let found = csv(text, &read).unwrap();
        assert_eq!(suite::ids_in(&found.batch), wanted, "{filter}");
        assert_eq!(found.counts.skipped, 3 - wanted.len() as u64);
    }
    let broken = SourceRead { filters: vec!["nonsense(".into()], ..csv_read(columns(&[("a", "int64")])) };
    assert_eq!(code_of(csv(text, &broken)), Code::TaskSpecInvalid);
}

#[test]
fn ndjson_members_become_values() {
    let folder = Folder::new();
    folder.put(
        "rows.ndjson",
        "{\"id\":1,\"price\":0.10,\"tags\":[\"a\",null],\"who\":{\"name\":\"x\\u00e9\",\"age\":3}}\n\n{\"price\":\"12.50\",\"id\":2,\"extra\":[1]}\n{\"id\":3,\"tags\":[],\"who\":null}\r\n",
    );
    let wanted = columns(&[
        ("id", "int64"),
        ("price", "decimal(10,2)"),
        ("tags", "list<string>"),
        ("who", "struct<name:string,age:int64>"),
    ]);
    let found = block_on(read(&folder.place, &source_read("rows.ndjson", FileFormat::Ndjson, wanted.clone()))).unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&[found.batch]).unwrap().to_string();
    let expected = "\
+----+-------+-------+--------------------+
| id | price | tags  | who                |
+----+-------+-------+--------------------+
| 1  | 0.10  | [a, ] | {name: xé, age: 3} |
| 2  | 12.50 |       |                    |
| 3  |       | []    |                    |
+----+-------+-------+--------------------+";
    assert_eq!(shown, expected);
    folder.put("rows.ndjson", "{\"id\":1}\nnot json\n{\"id\":true}\n");
    let mut bad = source_read("rows.ndjson", FileFormat::Ndjson, columns(&[("id", "int64")]));
    assert_eq!(code_of(block_on(read(&folder.place, &bad))), Code::SourceMalformed);
    bad.lossy = LossyCast::Quarantine;
    let found = block_on(read(&folder.place, &bad)).unwrap();
    let reasons: Vec<_> =
        found.rejects.iter().map(|reject| (reject.position.as_deref().unwrap(), reject.reason.as_str())).collect();
    assert_eq!(reasons, [("rows.ndjson:2", "not one JSON object"), ("rows.ndjson:3", "column \"id\": not an int64")]);
}

#[test]
fn many_streams_read_what_one_does() {
    let folder = Folder::new();
    let mut text = String::from("id,text\n");
    for id in 0..400_000 {
        text.push_str(&format!("{id},\"line {id}\nof text, with \"\"quotes\"\"\"\n"));
    }
    folder.put("rows.csv", &text);
    let source = csv_read(suite::id_columns());
    let one = block_on(read(&folder.place, &source)).unwrap();
    assert_eq!(
        one.batch.column(0).as_primitive::<Int64Type>().values().to_vec(),
        (0..400_000).collect::<Vec<i64>>(),
        "in order"
    );
    let (context, received) = read_context(run(folder.place.base.clone()), 4);
    let many = block_on(read_with(&source, context, received)).unwrap();
    assert_eq!(suite::ids_in(&many.batch), suite::ids_in(&one.batch));
}

#[test]
fn placeholders_choose_files() {
    let folder = Folder::new();
    folder.put("d=2013-01-02/rows.csv", "a\n2\n");
    folder.put("d=2013-01-03/rows.csv", "a\n3\n");
    let source = source_read("d={data_interval_start:%Y-%m-%d}/*.csv", FileFormat::Csv, columns(&[("a", "int64")]));
    let interval = Interval { start: "2013-01-03T00:00:00Z".into(), end: "2013-01-04T00:00:00Z".into() };
    let (context, received) =
        read_context(RunContext { interval: Some(interval), ..run(folder.place.base.clone()) }, 1);
    let found = block_on(read_with(&source, context, received)).unwrap();
    assert_eq!(suite::ids_in(&found.batch), [3]);
    assert_eq!(code_of(block_on(read(&folder.place, &source))), Code::SpecBadUri);
}

#[test]
fn parquet_row_groups_without_needed_rows_are_not_read() {
    let folder = Folder::new();
    let sink = sink_write("rows.parquet", FileFormat::Parquet, suite::id_columns());
    let batches: Vec<_> = (0..4).map(|at| suite::ids(at * 100_000, (at + 1) * 100_000)).collect();
    block_on(write(&sink, run(folder.place.base.clone()), &batches)).unwrap();
    let source = SourceRead {
        filters: vec!["id >= 399990".into()],
        ..source_read("rows.parquet", FileFormat::Parquet, suite::id_columns())
    };
    let found = block_on(read(&folder.place, &source)).unwrap();
    assert_eq!((found.counts.passed, found.counts.skipped), (10, 399_990));
    let whole = fs::metadata(folder.path("rows.parquet")).unwrap().len();
    assert!(found.counts.bytes < whole / 2, "{} of {whole}", found.counts.bytes);
}

#[test]
fn declared_types_win() {
    let folder = Folder::new();
    folder.put("rows.csv", "code,amount,email\n1,1.5,a@b\n2,x,c@d\n");
    let spec = |text: &str| ColumnSpec { data_type: Some(text.parse().unwrap()), ..ColumnSpec::default() };
    let source = dagwright_model::spec::Source {
        locator: Locator::Uri("rows.csv".into()),
        format: None,
        csv: CsvOptions::default(),
        incremental: None,
        columns: BTreeMap::from([
            ("code".into(), spec("string")),
            ("amount".into(), spec("decimal(10,2)")),
            (
                "email".into(),
                ColumnSpec { classification: Some("pii".into()), mask: Some(Mask::Hmac), ..ColumnSpec::default() },
            ),
        ]),
        on_missing: OnMissing::Fail,
    };
    let found = block_on(profile_of(&folder.place, &source, &[])).unwrap();
    let shown: Vec<_> = found
        .columns
        .iter()
        .map(|column| (column.column.data_type.to_string(), column.confidence, column.misfits.clone()))
        .collect();
    assert_eq!(shown[0], ("string".into(), 100, BTreeMap::new()));
    assert_eq!(shown[1], ("decimal(10,2)".into(), 100, BTreeMap::from([("decimal(10,2)".into(), 1)])));
    assert_eq!((shown[2].0.as_str(), found.columns[2].classified, &found.columns[2].min), ("string", true, &None));
}

#[test]
fn a_profile_does_not_depend_on_time_or_place() {
    let (one, two) = (Folder::new(), Folder::new());
    for folder in [&one, &two] {
        folder.put("a/x.csv", "a,b\n1,2\n");
        folder.put("a/y.csv", "a,b\n3,4\n");
    }
    let of = |folder: &Folder| block_on(profile(&folder.place, "a/*.csv", &[])).unwrap();
    assert_eq!(of(&one), of(&two));
    two.put("a/y.csv", "a,b\n3,5\n");
    assert_ne!(of(&one).fingerprint, of(&two).fingerprint);
}

#[test]
fn nycflights13_is_profiled() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/nycflights13").canonicalize().unwrap();
    let place = Place { root: String::new(), base: Some(base.to_str().unwrap().into()) };
    let keys = [["year", "month", "day", "carrier", "flight", "origin"].map(ToOwned::to_owned).to_vec()];
    let mut shown = String::new();
    for file in ["airlines", "airports", "flights", "planes", "weather"] {
        let keys = if file == "flights" { &keys[..] } else { &[] };
        let found = block_on(profile(&place, &format!("{file}.csv"), keys)).unwrap();
        shown.push_str(&format!("{file}: {} rows, keys {:?}\n", found.rows.value, found.candidate_keys));
        for check in &found.key_checks {
            shown.push_str(&format!(
                "  check {:?}: {} duplicates, {} nulls\n",
                check.columns, check.duplicates.value, check.nulls
            ));
        }
        let watermarks: Vec<_> =
            found.watermarks.iter().map(|mark| format!("{} ({} regressions)", mark.column, mark.regressions)).collect();
        shown.push_str(&format!("  watermarks: {}\n", watermarks.join(", ")));
        for column in &found.columns {
            shown.push_str(&format!(
                "  {}: {} {}%, {} nulls, {} distinct, {}..{}{}\n",
                column.column.name,
                column.column.data_type,
                column.confidence,
                column.nulls,
                column.distinct.unwrap(),
                column.min.as_deref().unwrap_or("-"),
                column.max.as_deref().unwrap_or("-"),
                if column.misfits.is_empty() { String::new() } else { format!(", misfits {:?}", column.misfits) },
            ));
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/nycflights13.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &shown).unwrap();
    }
    assert_eq!(shown, fs::read_to_string(&golden).unwrap(), "set UPDATE_GOLDEN=1 to accept");
}

/// Any value of a type, as text that reads back.
fn cell(data_type: &str) -> prop::strategy::BoxedStrategy<Option<serde_json::Value>> {
    use serde_json::json;
    let value = match data_type {
        "boolean" => any::<bool>().prop_map(|value| json!(value)).boxed(),
        "int16" => any::<i16>().prop_map(|value| json!(value)).boxed(),
        "int64" => any::<i64>().prop_map(|value| json!(value)).boxed(),
        "float64" => prop::num::f64::NORMAL.prop_map(|value| json!(value)).boxed(),
        "decimal(20,3)" => {
            any::<i64>().prop_map(|value| json!(format!("{}.{:03}", value / 1000, (value % 1000).abs()))).boxed()
        }
        "date" => (-200_000..200_000_i64)
            .prop_map(|day| {
                json!((chrono::DateTime::UNIX_EPOCH + chrono::Duration::days(day)).format("%Y-%m-%d").to_string())
            })
            .boxed(),
        "timestamptz" => any::<i32>()
            .prop_map(|at| {
                json!(
                    chrono::DateTime::from_timestamp_micros(i64::from(at) * 1_000_003)
                        .unwrap()
                        .format("%Y-%m-%dT%H:%M:%S%.6fZ")
                        .to_string()
                )
            })
            .boxed(),
        "string" => "[a-z,;\"'\n\r\t é€]{0,12}".prop_map(|text| json!(text)).boxed(),
        "list<int64>" => prop::collection::vec(any::<i64>(), 0..4).prop_map(|items| json!(items)).boxed(),
        _ => ("[a-z\"]{0,3}", any::<bool>()).prop_map(|(a, b)| json!({"a": a, "b": b})).boxed(),
    };
    prop::option::weighted(0.8, value).boxed()
}

const TYPES: [&str; 10] = [
    "boolean",
    "int16",
    "int64",
    "float64",
    "decimal(20,3)",
    "date",
    "timestamptz",
    "string",
    "list<int64>",
    "struct<a:string,b:boolean>",
];

/// Rows of JSON become a batch by way of the NDJSON reader.
fn batch_of(rows: &[Vec<Option<serde_json::Value>>], wanted: &[Column]) -> RecordBatch {
    if rows.is_empty() {
        return RecordBatch::new_empty(arrow_schema(wanted));
    }
    let mut text = String::new();
    for row in rows {
        let object: serde_json::Map<_, _> =
            wanted.iter().zip(row).map(|(column, value)| (column.name.clone(), value.clone().into())).collect();
        text.push_str(&format!("{}\n", serde_json::Value::Object(object)));
    }
    let folder = Folder::new();
    folder.put("rows.ndjson", text);
    block_on(read(&folder.place, &source_read("rows.ndjson", FileFormat::Ndjson, wanted.to_vec()))).unwrap().batch
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 40, ..Default::default() })]
    #[test]
    fn what_is_written_reads_back(
        rows in prop::collection::vec(TYPES.map(cell).to_vec(), 0..30),
    ) {
        let wanted: Vec<Column> = TYPES.iter().enumerate().map(|(at, text)| {
            Column { name: format!("c, \"{at}\""), data_type: text.parse().unwrap(), nullable: true }
        }).collect();
        let batch = batch_of(&rows, &wanted);
        let folder = Folder::new();
        for format in [FileFormat::Parquet, FileFormat::Csv, FileFormat::Ndjson] {
            let uri = format!("out.{format:?}");
            block_on(write(&sink_write(&uri, format, wanted.clone()), run(folder.place.base.clone()), std::slice::from_ref(&batch))).unwrap();
            let found = block_on(read(&folder.place, &source_read(&uri, format, wanted.clone()))).unwrap();
            assert_same(&found.batch, &batch);
        }
    }
}
