//! Files that people edit: each object on its own, the last good version of a broken one kept, and found by its name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lateen_api::diagnostic::{Subject, code};
use lateen_api::parse::MAX_TEXT;
use lateen_api::{Diagnostic, Object, ObjectKey, Severity, parse_documents, validate};
use sha2::{Digest as _, Sha256};

use super::DEFAULT_NAMESPACE;

/// Files in a folder that are read.
const SUFFIXES: [&str; 3] = ["yaml", "yml", "json"];
/// A folder with more of them is a mistake.
const MAX_FILES: usize = 20_000;

/// A list of files and folders, and what is in them.
pub(super) struct FileSet {
    paths: Vec<PathBuf>,
    writer: WrittenBy,
    files: BTreeMap<Arc<FileKey>, File>,
    /// Where the objects stand, in the order of precedence.
    places: HashMap<ObjectKey, Vec<Place>>,
    problems: Vec<Diagnostic>,
}

/// Who writes the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WrittenBy {
    /// People, who are told lines and columns.
    People,
    /// A program: the line of the object is enough.
    Program,
}

/// Which of the paths it belongs to, and its own.
type FileKey = (usize, PathBuf);

/// A file that has an object, and which of its objects that is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: Arc<FileKey>,
    at: usize,
}

/// What an event of the file system means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// One file has changed.
    File,
    /// Nothing that is read.
    Nothing,
    /// Whatever has changed, it takes a look at everything to tell.
    Anything,
}

/// One file.
#[derive(Default)]
struct File {
    /// What the file system said of it before it was read last; none when that cannot vouch for what was read.
    stamp: Option<Stamp>,
    /// Of the text that was read last; none when it could not be.
    digest: Option<[u8; 32]>,
    /// It was read through a symbolic link.
    by_link: bool,
    objects: Vec<Object>,
    diagnostics: Vec<Diagnostic>,
}

/// What changes with a file's content: which file it is, how long, and when it was changed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    /// Of content and of attributes, in seconds and nanoseconds. Nobody can set the second back.
    changed: [(i64, i64); 2],
}

/// A file that was changed as recently as this when it was read may change again without another time stamp: the clock of
/// file systems goes in steps of some milliseconds.
const STEP: Duration = Duration::from_millis(100);

impl Stamp {
    fn of(file: &Metadata) -> Self {
        let changed = [(file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec())];
        Self { file: (file.dev(), file.ino()), size: file.len(), changed }
    }

    /// The stamp, if a file that is changed from now on will have another.
    fn settled(self) -> Option<Self> {
        let [_, (seconds, nanoseconds)] = self.changed;
        let changed = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        (now.checked_sub(changed)? > STEP).then_some(self)
    }
}

impl FileSet {
    pub(super) fn new(paths: Vec<PathBuf>, writer: WrittenBy) -> Self {
        Self { paths, writer, files: BTreeMap::new(), places: HashMap::new(), problems: Vec::new() }
    }

    /// All objects of this name, the one that counts first.
    pub(super) fn versions(&self, key: &ObjectKey) -> impl Iterator<Item = &Object> {
        self.places
            .get(key)
            .into_iter()
            .flatten()
            .filter_map(|place| self.files.get(&place.file)?.objects.get(place.at))
    }

    /// The names of all objects.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.places.keys()
    }

    /// Gives this age to the objects of this name that have none.
    pub(super) fn date(&mut self, key: &ObjectKey, age: u64) {
        for place in self.places.get(key).into_iter().flatten() {
            let object = self.files.get_mut(&place.file).and_then(|file| file.objects.get_mut(place.at));
            if let Some(object) = object.filter(|object| object.age() == 0) {
                object.set_age(age);
            }
        }
    }

    pub(super) fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.problems.iter().chain(self.files.values().flat_map(|file| &file.diagnostics))
    }

    /// What the file's version of an object says, as a digest; none when no file has it.
    pub(super) fn content_of(&self, key: &ObjectKey) -> Option<String> {
        self.versions(key).next().map(content)
    }

    /// Folders whose events tell of changes here: those of the paths, and those of the files that links lead to.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let own = self.paths.iter().map(|path| if path.is_dir() { path.clone() } else { parent(path) });
        own.chain(self.links().filter_map(|file| Some(parent(&file.canonicalize().ok()?)))).collect()
    }

    fn links(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().filter(|(_, file)| file.by_link).map(|(key, _)| key.1.as_path())
    }

    /// What an event about this path tells; none when the path is no part of this.
    pub(super) fn sign(&self, path: &Path) -> Option<Sign> {
        let is_file = self.keys_of(path).next().is_some();
        // In one of the folders, or beside one of the files.
        let is_near = |folder: &Path| self.paths.iter().any(|own| own == folder || own.parent() == Some(folder));
        let in_folder = path.parent().is_some_and(is_near);
        match (is_file, in_folder) {
            (false, false) => None,
            // A link may lead to whatever has changed.
            _ if !self.problems.is_empty() || self.links().next().is_some() => Some(Sign::Anything),
            (true, _) => Some(Sign::File),
            (false, true) => Some(Sign::Nothing),
        }
    }

    /// Under which of the paths a file is read, or would be if it were there.
    fn keys_of<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = FileKey> + 'a {
        let reads = move |own: &PathBuf| own == path || (path.parent() == Some(own.as_path()) && is_read(path));
        self.paths.iter().enumerate().filter(move |(_, own)| reads(own)).map(|(at, _)| (at, path.to_owned()))
    }

    /// Looks at one file again; gives the names of objects that may have changed, in the order of the file. False when it
    /// takes a look at everything.
    pub(super) fn read_file(&mut self, path: &Path, touched: &mut Vec<ObjectKey>) -> bool {
        let keys: Vec<_> = self.keys_of(path).map(Arc::new).collect();
        if self.files.len() >= MAX_FILES || path.is_symlink() {
            return false;
        }
        for key in keys {
            match std::fs::metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.paths.contains(&key.1) => {
                    self.forget(&key, touched);
                }
                // A path of its own is gone, or is a folder: what was in it is for a look at everything.
                Err(_) if self.paths.contains(&key.1) => return false,
                Ok(metadata) if metadata.is_dir() => return false,
                _ => self.look_at(&key, touched),
            }
        }
        true
    }

    /// Looks at everything again, and reads what may have changed.
    pub(super) fn read(&mut self, touched: &mut Vec<ObjectKey>) {
        self.problems.clear();
        let mut found = BTreeSet::new();
        for (position, path) in self.paths.iter().enumerate() {
            match list(path) {
                Ok(files) => found.extend(files.into_iter().map(|file| Arc::new((position, file)))),
                Err(error) => {
                    self.problems.push(unreadable(path, &error.to_string()));
                    // What is known of it stays: an unreadable folder is not an empty one.
                    found.extend(self.files.keys().filter(|key| key.0 == position).cloned());
                }
            }
        }
        let gone: Vec<_> = self.files.keys().filter(|key| !found.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.forget(key, touched));
        found.iter().for_each(|key| self.look_at(key, touched));
    }

    fn look_at(&mut self, key: &Arc<FileKey>, touched: &mut Vec<ObjectKey>) {
        let path = &key.1;
        let file = self.files.entry(Arc::clone(key)).or_default();
        match file.read(path, self.writer) {
            Ok(None) => {}
            Ok(Some(before)) => self.find_places(key, &before, touched),
            // Removed since its folder was listed, which is looked at again.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.paths.contains(path) => {}
            Err(error) => {
                (file.stamp, file.digest) = (None, None);
                file.diagnostics = vec![unreadable(path, &error.to_string())];
            }
        }
    }

    fn forget(&mut self, key: &Arc<FileKey>, touched: &mut Vec<ObjectKey>) {
        if let Some(file) = self.files.get_mut(key) {
            let before = std::mem::take(&mut file.objects);
            self.find_places(key, &before, touched);
            self.files.remove(key);
        }
    }

    /// Notes where the objects of a file stand now, and which of them differ from those before.
    fn find_places(&mut self, key: &Arc<FileKey>, before: &[Object], touched: &mut Vec<ObjectKey>) {
        let now = self.files.get(key).map_or(&[][..], |file| &file.objects);
        let (old, new) = (by_name(before), by_name(now));
        for name in old.keys() {
            if let Some(places) = self.places.get_mut(name) {
                places.retain(|place| place.file != *key);
            }
        }
        for (at, object) in now.iter().enumerate() {
            let place = Place { file: Arc::clone(key), at };
            let places = self.places.entry(object.key()).or_default();
            places.insert(places.partition_point(|known| *known < place), place);
        }
        let is_news = |name: &ObjectKey| {
            let same = |(a, b): (&&Object, &&Object)| a.is_same_but_for_age(b);
            let (old, new) =
                (old.get(name).map_or(&[][..], Vec::as_slice), new.get(name).map_or(&[][..], Vec::as_slice));
            old.len() != new.len() || !old.iter().zip(new).all(same)
        };
        touched.extend(now.iter().map(Object::key).filter(is_news));
        for gone in old.into_keys().filter(|name| !new.contains_key(name)) {
            if self.places.get(&gone).is_some_and(Vec::is_empty) {
                self.places.remove(&gone);
            }
            touched.push(gone);
        }
    }
}

fn by_name(objects: &[Object]) -> HashMap<ObjectKey, Vec<&Object>> {
    let mut out: HashMap<ObjectKey, Vec<&Object>> = HashMap::with_capacity(objects.len());
    for object in objects {
        out.entry(object.key()).or_default().push(object);
    }
    out
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}

impl File {
    /// Reads it if it may have changed; if it has, gives the objects that were in it.
    fn read(&mut self, path: &Path, writer: WrittenBy) -> io::Result<Option<Vec<Object>>> {
        let stamp = Stamp::of(&std::fs::metadata(path)?);
        if self.stamp == Some(stamp) {
            return Ok(None);
        }
        let text = read_text(path)?;
        self.by_link = path.is_symlink();
        let before = self.update(path, &text, writer);
        self.stamp = stamp.settled();
        Ok(before)
    }

    fn update(&mut self, path: &Path, text: &str, writer: WrittenBy) -> Option<Vec<Object>> {
        let digest = digest(text);
        if self.digest == Some(digest) {
            return None;
        }
        let parsed = parse_documents(&path.display().to_string(), text, DEFAULT_NAMESPACE);
        let mut diagnostics = parsed.diagnostics;
        let before = std::mem::take(&mut self.objects);
        let known: HashMap<ObjectKey, &Object> = before.iter().map(|object| (object.key(), object)).collect();
        let mut objects = Vec::new();
        for object in parsed.objects {
            let found = validate(&object);
            if !found.iter().any(Diagnostic::is_error) {
                let object = if writer == WrittenBy::Program { object.without_positions() } else { object };
                // Known objects stay the ones that they are: others have them too.
                let same = known.get(&object.key()).filter(|known| known.is_same_but_for_age(&object));
                objects.push(same.map_or(object, |same| (*same).clone()));
            }
            diagnostics.extend(found);
        }
        if diagnostics.iter().any(Diagnostic::is_error) {
            let there: BTreeSet<ObjectKey> = objects.iter().map(Object::key).collect();
            let kept = before.iter().filter(|old| is_broken(&old.key(), &diagnostics) && !there.contains(&old.key()));
            objects.extend(kept.cloned());
        }
        objects.shrink_to_fit();
        (self.stamp, self.digest) = (None, Some(digest));
        (self.objects, self.diagnostics) = (objects, diagnostics);
        Some(before)
    }
}

/// Tells texts from each other.
pub(super) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Whether the text has this object in a form that cannot be used; also when it has something of which not even the name
/// can be read.
fn is_broken(key: &ObjectKey, diagnostics: &[Diagnostic]) -> bool {
    let subject = Subject::from(key);
    diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .any(|diagnostic| diagnostic.object.as_ref().is_none_or(|object| *object == subject))
}

/// A digest of what an object says, wherever it stands.
pub(super) fn content(object: &Object) -> String {
    let digest = Sha256::digest(object.to_json().to_string());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A file is itself; a folder is the files in it, in the order of their names.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let (kind, file) = (entry.file_type()?, entry.path());
        if is_read(&file) && (kind.is_file() || kind.is_symlink() && file.is_file()) {
            files.push(file);
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")));
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file of this name is read in a folder.
fn is_read(file: &Path) -> bool {
    let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let suffix = file.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
    !hidden && SUFFIXES.contains(&suffix)
}

pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_TEXT as u64 {
        return Err(io::Error::other(format!("it has {size} bytes; at most {MAX_TEXT} are read")));
    }
    std::fs::read_to_string(path)
}

pub(super) fn unreadable(path: &Path, reason: &str) -> Diagnostic {
    Diagnostic {
        code: code::SYNTAX.to_owned(),
        severity: Severity::Error,
        object: None,
        file: path.display().to_string(),
        line: 0,
        column: 0,
        field: String::new(),
        message: format!("cannot be read: {reason}"),
        help: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &mut FileSet) -> Vec<String> {
        let mut touched = Vec::new();
        files.read(&mut touched);
        touched.iter().map(ToString::to_string).collect()
    }

    fn account(name: &str) -> String {
        format!("---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n")
    }

    #[test]
    fn the_folder_that_a_link_leads_to_is_watched_too() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (input, elsewhere) = (root.join("input"), root.join("elsewhere"));
        for folder in [&input, &elsewhere] {
            std::fs::create_dir(folder).unwrap();
        }
        std::fs::write(elsewhere.join("a.yaml"), "").unwrap();
        std::os::unix::fs::symlink("../elsewhere/a.yaml", input.join("a.yaml")).unwrap();
        let mut files = FileSet::new(vec![input.clone()], WrittenBy::People);
        read(&mut files);
        assert_eq!(files.folders(), [input.clone(), elsewhere]);
        // Whatever changes beside a link may be what it leads through.
        assert_eq!(files.sign(&input.join("..data")), Some(Sign::Anything));
    }

    #[test]
    fn a_file_that_changes_twice_in_one_step_of_the_clock_is_read_twice() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = FileSet::new(vec![folder.path().to_owned()], WrittenBy::People);
        let mut before = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            std::fs::write(folder.path().join("account.yaml"), account(name)).unwrap();
            let now = vec![format!("ServiceAccount default/{name}")];
            assert_eq!(read(&mut files), [now.clone(), before].concat());
            before = now;
        }
    }

    #[test]
    fn events_tell_which_file_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let own = |name: &str| folder.path().join(name);
        let mut files = FileSet::new(vec![folder.path().to_owned()], WrittenBy::People);
        std::fs::write(own("a.yaml"), account("a") + &account("b")).unwrap();
        assert_eq!(read(&mut files).len(), 2);
        for (name, sign) in [("a.yaml", Sign::File), ("new.json", Sign::File), (".a.yaml", Sign::Nothing)] {
            assert_eq!(files.sign(&own(name)), Some(sign), "{name}");
        }
        assert_eq!(files.sign(Path::new("/elsewhere/a.yaml")), None);
        let mut look = |name: &str| {
            let mut touched = Vec::new();
            assert!(files.read_file(&own(name), &mut touched));
            touched.iter().map(|key| key.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(look("a.yaml"), [""; 0]);
        std::fs::write(own("a.yaml"), account("a") + &account("c")).unwrap();
        std::fs::write(own("b.yaml"), account("d")).unwrap();
        assert_eq!(look("a.yaml"), ["c", "b"]);
        assert_eq!(look("b.yaml"), ["d"]);
        std::fs::remove_file(own("b.yaml")).unwrap();
        assert_eq!(look("b.yaml"), ["d"]);
        assert_eq!(read(&mut files), [""; 0]);
        assert_eq!(files.keys().count(), 2);
    }

    #[test]
    fn a_folder_that_goes_keeps_what_is_known_of_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("input");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a.yaml"), account("a")).unwrap();
        let mut files = FileSet::new(vec![folder.clone()], WrittenBy::People);
        read(&mut files);
        std::fs::remove_dir_all(&folder).unwrap();
        // The event names the folder, which no single file is read for.
        assert_eq!(files.sign(&folder), Some(Sign::File));
        assert!(!files.read_file(&folder, &mut Vec::new()));
        assert_eq!(read(&mut files), [""; 0]);
        assert_eq!((files.keys().count(), files.diagnostics().count()), (1, 1));
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(read(&mut files), ["ServiceAccount default/a"]);
        assert_eq!(files.diagnostics().count(), 0);
    }
}
