//! The watcher of the directory source: what it takes for a change.

use std::sync::mpsc;
use std::time::Duration;

use super::*;

/// A watcher of a folder whose file is read and then written: what it sends.
#[test]
fn reading_is_no_change_and_writing_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    std::fs::write(&file, "one").unwrap();
    let (sender, events) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let _ = sender.send(event.unwrap());
    })
    .unwrap();
    watcher.watch(folder.path(), RecursiveMode::NonRecursive).unwrap();
    std::fs::read(&file).unwrap();
    std::fs::read_dir(folder.path()).unwrap().count();
    // Events come in order: all that come before this file's are of reading.
    std::fs::write(folder.path().join("end"), "").unwrap();
    let next = || events.recv_timeout(Duration::from_secs(10)).expect("the file system tells");
    let mut event = next();
    while !event.paths.iter().any(|path| path.ends_with("end")) {
        assert!(!tells_of_change(&event), "{event:?}");
        event = next();
    }
    assert!(tells_of_change(&event), "{event:?}");
}

/// A pod's file and something that takes a look at everything, told of together: the pod is not lost on the way.
#[test]
fn what_was_read_before_a_look_at_everything_is_not_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let own = |name: &str| folder.path().join(name);
    for name in ["applied", "pods"] {
        std::fs::create_dir(own(name)).unwrap();
    }
    let (writer, store) = crate::store::new();
    let options =
        Options { paths: Vec::new(), applied: own("applied"), pods: own("pods"), addresses: own("addresses.json") };
    let mut reader = Reader::new(options, writer, None);
    reader.read_all();
    let file = own("pods").join("a.yaml");
    std::fs::write(&file, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n").unwrap();
    reader.read(Changed::Files(BTreeSet::from([file, own("zzz-elsewhere")])));
    assert!(store.contents().get(Kind::ServiceAccount, DEFAULT_NAMESPACE, "a").is_some());
}

/// A file is watched through its folder, where others may write all day.
#[test]
fn what_happens_beside_a_file_is_none_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    std::fs::write(&file, "").unwrap();
    let mut files = FileSet::new(vec![file.clone()], WrittenBy::People);
    files.read(&mut Vec::new());
    assert_eq!(files.sign(&file), Some(Sign::File));
    assert_eq!(files.sign(&folder.path().join("b.log")), Some(Sign::Nothing));
    assert_eq!(files.sign(&folder.path().join("further/b.log")), None);
}
