//! A DAG folder alone.

use std::{fs, os::unix::fs::MetadataExt as _, time::SystemTime};

use super::{Kind, Place, of_dags};
use crate::airflow::deploy::{Destination as _, Folder};

#[test]
fn what_is_the_same_is_not_written() {
    let place = Place::new(Kind::Folder);
    let destination = Folder::new(place.path());
    destination.put(&of_dags(&[("a", 1), ("b", 1)])).expect("put");
    let file = place.path().join("a.py");
    fs::File::options()
        .write(true)
        .open(&file)
        .expect("the file")
        .set_modified(SystemTime::UNIX_EPOCH)
        .expect("a time");
    let before = fs::metadata(&file).expect("the file");
    assert!(destination.put(&of_dags(&[("a", 1), ("b", 2)])).expect("put").changed);
    let after = fs::metadata(&file).expect("the file");
    assert_eq!((before.ino(), before.mtime()), (after.ino(), after.mtime()));
}

#[test]
fn a_file_that_is_not_what_it_was_is_mended() {
    let place = Place::new(Kind::Folder);
    let destination = Folder::new(place.path());
    let change = of_dags(&[("a", 1)]);
    destination.put(&change).expect("put");
    for name in change.dags["a"].keys() {
        let file = place.path().join(name);
        let cut = &fs::read(&file).expect("the file")[..60];
        fs::write(&file, cut).expect("the file");
        assert!(destination.put(&change).expect("put").changed);
        assert_eq!(place.seen(), change.dags["a"]);
    }
}

#[test]
fn nothing_there_is_nothing_left_over() {
    let place = Place::new(Kind::Folder);
    assert_eq!(Folder::new(place.path()).leftovers().expect("leftovers"), []);
    assert!(!place.path().exists());
}
