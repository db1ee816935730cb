//! Files that people edit: read whole, each object on its own, and the last good version of a broken one kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
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
    files: BTreeMap<(usize, PathBuf), File>,
    problems: Vec<Diagnostic>,
}

/// One file.
#[derive(Default)]
struct File {
    /// What the file system said of it before it was read last; none when that cannot vouch for what was read.
    stamp: Option<Stamp>,
    /// As last read; none when it could not be.
    text: Option<String>,
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
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, files: BTreeMap::new(), problems: Vec::new() }
    }

    /// In force, in the order of precedence.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.files.values().flat_map(|file| &file.objects)
    }

    pub(super) fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.problems.iter().chain(self.files.values().flat_map(|file| &file.diagnostics))
    }

    /// What the file's version of an object says, as a digest; none when no file has it.
    pub(super) fn content_of(&self, key: &ObjectKey) -> Option<String> {
        self.objects().find(|object| object.key() == *key).map(content)
    }

    /// Folders whose events tell of changes here: those of the paths, and those of the files that links lead to.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let parent = |path: &Path| match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => path.to_owned(),
        };
        let own = self.paths.iter().map(|path| if path.is_dir() { path.clone() } else { parent(path) });
        let links = self.files.keys().filter(|(_, file)| file.is_symlink());
        own.chain(links.filter_map(|(_, file)| Some(parent(&file.canonicalize().ok()?)))).collect()
    }

    /// Looks at everything again, and reads what may have changed.
    pub(super) fn read(&mut self) {
        self.problems.clear();
        let mut found = BTreeSet::new();
        for (position, path) in self.paths.iter().enumerate() {
            match list(path) {
                Ok(files) => found.extend(files.into_iter().map(|file| (position, file))),
                Err(error) => {
                    self.problems.push(unreadable(path, &error.to_string()));
                    // What is known of it stays: an unreadable folder is not an empty one.
                    found.extend(self.files.keys().filter(|(of, _)| *of == position).cloned());
                }
            }
        }
        self.files.retain(|key, _| found.contains(key));
        for key in found {
            let path = key.1.clone();
            let file = self.files.entry(key).or_default();
            match file.read(&path) {
                Ok(()) => {}
                // Removed since its folder was listed, which is looked at again.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.paths.contains(&path) => {}
                Err(error) => {
                    (file.stamp, file.text) = (None, None);
                    file.diagnostics = vec![unreadable(&path, &error.to_string())];
                }
            }
        }
    }
}

impl File {
    fn read(&mut self, path: &Path) -> io::Result<()> {
        let stamp = Stamp::of(&std::fs::metadata(path)?);
        if self.stamp == Some(stamp) {
            return Ok(());
        }
        let text = read_text(path)?;
        self.update(path, text);
        self.stamp = stamp.settled();
        Ok(())
    }

    fn update(&mut self, path: &Path, text: String) {
        if self.text.as_ref() == Some(&text) {
            return;
        }
        let parsed = parse_documents(&path.display().to_string(), &text, DEFAULT_NAMESPACE);
        let mut diagnostics = parsed.diagnostics;
        let mut objects = Vec::new();
        for object in parsed.objects {
            let found = validate(&object);
            if !found.iter().any(Diagnostic::is_error) {
                objects.push(object);
            }
            diagnostics.extend(found);
        }
        let before = std::mem::take(&mut self.objects);
        for old in before {
            if is_broken(&old.key(), &diagnostics) && !objects.iter().any(|object| object.key() == old.key()) {
                objects.push(old);
            }
        }
        *self = Self { stamp: None, text: Some(text), objects, diagnostics };
    }
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
        let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let suffix = file.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
        if !hidden && SUFFIXES.contains(&suffix) && (kind.is_file() || kind.is_symlink() && file.is_file()) {
            files.push(file);
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")));
        }
    }
    files.sort();
    Ok(files)
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
        let mut files = FileSet::new(vec![input.clone()]);
        files.read();
        assert_eq!(files.folders(), [input, elsewhere]);
    }

    #[test]
    fn a_file_that_changes_twice_in_one_step_of_the_clock_is_read_twice() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = FileSet::new(vec![folder.path().to_owned()]);
        for name in ["a", "b", "c", "d", "e"] {
            let text = format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n");
            std::fs::write(folder.path().join("account.yaml"), text).unwrap();
            files.read();
            assert_eq!(files.objects().map(Object::name).collect::<Vec<_>>(), [name]);
        }
    }
}
