//! Objects that were applied or deleted by a call: one file each, which says what it was written over.
//!
//! A record holds as long as the files say what they said when it was made. When a file's version of the object changes,
//! that is the later write, and the record goes.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use lateen_api::{Diagnostic, Object, ObjectKey, Origin, parse_documents, validate};
use serde::{Deserialize, Serialize};

use super::DEFAULT_NAMESPACE;
use super::files::{Sign, digest, read_text, unreadable};

/// How the first line of a record starts.
const HEADER: &str = "# lateen: ";

/// All records in a folder.
pub(super) struct Applied {
    folder: PathBuf,
    records: BTreeMap<ObjectKey, Record>,
    /// What was read last, by file.
    files: BTreeMap<PathBuf, Known>,
    /// Why the folder could not be read.
    problem: Option<Diagnostic>,
    /// Whether [`Applied::settle`] was last certain.
    certain: bool,
}

/// A file in the folder.
struct Known {
    digest: [u8; 32],
    /// The record in it, or what is wrong with it.
    key: Result<ObjectKey, Vec<Diagnostic>>,
}

struct Record {
    /// None: the object is deleted.
    object: Option<Object>,
    over: Over,
}

/// What the files said when the record was made.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Over {
    /// Not known: a file that somebody put here by hand counts as written now.
    Now,
    Content(Option<String>),
}

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    over: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deleted: Option<ObjectKey>,
}

impl Applied {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, records: BTreeMap::new(), files: BTreeMap::new(), problem: None, certain: false }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was applied under this name: an object, or nothing where it is deleted. None when nothing was.
    pub(super) fn record(&self, key: &ObjectKey) -> Option<Option<&Object>> {
        self.records.get(key).map(|record| record.object.as_ref())
    }

    /// The names of all records.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.records.keys()
    }

    /// Gives this age to the object of this name if it has none.
    pub(super) fn date(&mut self, key: &ObjectKey, age: u64) {
        let object = self.records.get_mut(key).and_then(|record| record.object.as_mut());
        if let Some(object) = object.filter(|object| object.age() == 0) {
            object.set_age(age);
        }
    }

    pub(super) fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.problem.iter().chain(self.files.values().filter_map(|file| file.key.as_ref().err()).flatten())
    }

    /// What an event about this path tells; none when the path is no part of this.
    pub(super) fn sign(&self, path: &Path) -> Option<Sign> {
        let own = path.parent() == Some(&self.folder);
        own.then(|| if is_record(path) { Sign::File } else { Sign::Nothing })
    }

    /// Reads the folder again, as far as anything in it has changed; gives the names of records that differ.
    pub(super) fn read(&mut self, touched: &mut Vec<ObjectKey>) {
        let there = std::fs::read_dir(&self.folder).and_then(|entries| {
            let paths = entries.map(|entry| Ok(entry?.path()));
            paths.filter(|path| path.as_ref().map_or(true, |path| is_record(path))).collect::<io::Result<Vec<_>>>()
        });
        match there {
            Ok(mut paths) => {
                paths.sort();
                let gone: Vec<_> =
                    self.files.keys().filter(|known| paths.binary_search(known).is_err()).cloned().collect();
                self.problem = None;
                gone.iter().for_each(|path| self.forget_file(path, touched));
                paths.iter().for_each(|path| self.read_file(path, touched));
            }
            Err(error) => self.problem = Some(unreadable(&self.folder, &error.to_string())),
        }
    }

    /// Reads one file again.
    pub(super) fn read_file(&mut self, path: &Path, touched: &mut Vec<ObjectKey>) {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.forget_file(path, touched),
            // What is known of it stays.
            Err(error) => return self.problem = Some(unreadable(path, &error.to_string())),
        };
        let digest = digest(&text);
        if self.files.get(path).is_some_and(|known| known.digest == digest) {
            return;
        }
        self.forget_file(path, touched);
        let key = parse(path, &text).map(|(key, record)| {
            self.records.insert(key.clone(), record);
            touched.push(key.clone());
            key
        });
        self.files.insert(path.to_owned(), Known { digest, key });
    }

    fn forget_file(&mut self, path: &Path, touched: &mut Vec<ObjectKey>) {
        if let Some(Known { key: Ok(key), .. }) = self.files.remove(path) {
            self.records.remove(&key);
            // Another file that somebody put here under the same name counts again: it is read anew.
            self.files.retain(|_, other| other.key.as_ref().ok() != Some(&key));
            touched.push(key);
        }
    }

    /// Drops those of these records that a file has overtaken. `content` gives what the files say of an object now; `certain`
    /// is false when an object that they do not have may only be unreadable at present.
    pub(super) fn settle(
        &mut self,
        touched: &[ObjectKey],
        certain: bool,
        content: impl Fn(&ObjectKey) -> Option<String>,
    ) -> Vec<ObjectKey> {
        let all: Vec<ObjectKey>;
        let mut looked_at = touched;
        if certain && !self.certain {
            all = self.records.keys().cloned().collect();
            looked_at = &all;
        }
        self.certain = certain;
        let mut overtaken = Vec::new();
        for key in looked_at {
            let Some(record) = self.records.get_mut(key) else { continue };
            let now = content(key);
            if record.over == Over::Now {
                record.over = Over::Content(now.clone());
            }
            let Over::Content(over) = &record.over else { continue };
            let rewritten = now.is_some() && now != *over;
            // Nothing is left to be deleted.
            let pointless = now.is_none() && record.object.is_none() && certain;
            if rewritten || pointless {
                overtaken.push(key.clone());
            }
        }
        for key in &overtaken {
            if let Err(error) = self.forget(key) {
                tracing::warn!(object = %key, %error, "an overtaken record cannot be removed");
            }
        }
        overtaken
    }

    /// Applies an object over what the files say.
    pub(super) fn put(&mut self, object: Object, over: Option<String>) -> io::Result<()> {
        let key = object.key();
        let header = Header { over: over.clone(), origin: Some(object.origin().clone()), deleted: None };
        self.write(&key, &header, &format!("{:#}\n", object.to_json()))?;
        self.records.insert(key, Record { object: Some(object), over: Over::Content(over) });
        Ok(())
    }

    /// Deletes an object: the record if there is only that, and else what the files say, until they say something else.
    pub(super) fn delete(&mut self, key: &ObjectKey, over: Option<String>) -> io::Result<()> {
        if over.is_none() {
            return self.forget(key);
        }
        let header = Header { over: over.clone(), origin: None, deleted: Some(key.clone()) };
        self.write(key, &header, "")?;
        self.records.insert(key.clone(), Record { object: None, over: Over::Content(over) });
        Ok(())
    }

    fn forget(&mut self, key: &ObjectKey) -> io::Result<()> {
        let path = self.folder.join(file_name(key));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.files.remove(&path);
        self.records.remove(key);
        Ok(())
    }

    fn write(&mut self, key: &ObjectKey, header: &Header, body: &str) -> io::Result<()> {
        let header = serde_json::to_string(header).map_err(io::Error::other)?;
        let text = format!("{HEADER}{header}\n{body}");
        let name = file_name(key);
        let (path, draft) = (self.folder.join(&name), self.folder.join(format!(".{name}.draft")));
        // It may be a Secret.
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)?;
        std::fs::File::open(&self.folder)?.sync_all()?;
        self.files.insert(path, Known { digest: digest(&text), key: Ok(key.clone()) });
        Ok(())
    }
}

/// Whether a file of this name is read.
fn is_record(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|suffix| suffix == "yaml")
}

fn parse(path: &Path, text: &str) -> Result<(ObjectKey, Record), Vec<Diagnostic>> {
    let header = text.lines().next().and_then(|line| line.strip_prefix(HEADER));
    let header: Option<Header> = match header.map(serde_json::from_str).transpose() {
        Ok(header) => header,
        Err(error) => return Err(vec![unreadable(path, &format!("its first line: {error}"))]),
    };
    let over = header.as_ref().map_or(Over::Now, |header| Over::Content(header.over.clone()));
    if let Some(key) = header.as_ref().and_then(|header| header.deleted.clone()) {
        return Ok((key, Record { object: None, over }));
    }
    let mut parsed = parse_documents(&path.display().to_string(), text, DEFAULT_NAMESPACE);
    if parsed.objects.len() + parsed.diagnostics.len() != 1 {
        parsed.diagnostics.push(unreadable(path, "one object is expected"));
    }
    parsed.diagnostics.extend(parsed.objects.first().map(validate).into_iter().flatten());
    match parsed.objects.pop() {
        Some(object) if !parsed.diagnostics.iter().any(Diagnostic::is_error) => {
            let object = match header.and_then(|header| header.origin) {
                Some(origin) => object.with_origin(origin),
                None => object,
            };
            Ok((object.key(), Record { object: Some(object), over }))
        }
        _ => Err(parsed.diagnostics),
    }
}

/// `VirtualService_default_reviews.yaml`. Neither names of kinds nor of objects have underscores.
fn file_name(key: &ObjectKey) -> String {
    format!("{}_{}_{}.yaml", key.kind, key.namespace, key.name)
}

/// Whether the key can be a file's name: Kubernetes' names can (RFC 1123), and nothing else may.
pub(super) fn is_file_name(key: &ObjectKey) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b':');
    let fits = |text: &str| text.bytes().all(legal) && text.len() <= 253;
    fits(&key.name) && fits(&key.namespace) && file_name(key).len() <= 240
}
