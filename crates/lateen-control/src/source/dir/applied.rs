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
use super::files::{read_text, unreadable};

/// How the first line of a record starts.
const HEADER: &str = "# lateen: ";

/// All records in a folder.
pub(super) struct Applied {
    folder: PathBuf,
    records: BTreeMap<ObjectKey, Record>,
    /// As last read, by file name.
    texts: BTreeMap<PathBuf, String>,
    diagnostics: Vec<Diagnostic>,
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
        Self { folder, records: BTreeMap::new(), texts: BTreeMap::new(), diagnostics: Vec::new() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Each object, or nothing for one that is deleted.
    pub(super) fn records(&self) -> impl Iterator<Item = (&ObjectKey, Option<&Object>)> {
        self.records.iter().map(|(key, record)| (key, record.object.as_ref()))
    }

    pub(super) fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Reads the folder again, if anything in it has changed.
    pub(super) fn read(&mut self) {
        let texts = match self.texts() {
            Ok(texts) => texts,
            Err(error) => {
                self.diagnostics = vec![unreadable(&self.folder, &error.to_string())];
                return;
            }
        };
        if texts == self.texts {
            return;
        }
        let mut before = std::mem::take(&mut self.records);
        self.diagnostics.clear();
        for (path, text) in &texts {
            if self.texts.get(path) == Some(text) {
                // Unchanged files keep their records, with what has been found out about them since.
                let of = |key: &ObjectKey| self.folder.join(file_name(key)) == *path;
                if let Some(key) = before.keys().find(|key| of(key)).cloned() {
                    self.records.extend(before.remove(&key).map(|record| (key, record)));
                    continue;
                }
            }
            match parse(path, text) {
                Ok((key, record)) => drop(self.records.insert(key, record)),
                Err(diagnostics) => self.diagnostics.extend(diagnostics),
            }
        }
        self.texts = texts;
    }

    fn texts(&self) -> io::Result<BTreeMap<PathBuf, String>> {
        let mut texts = BTreeMap::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden || path.extension().is_none_or(|suffix| suffix != "yaml") {
                continue;
            }
            match read_text(&path) {
                Ok(text) => drop(texts.insert(path, text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(texts)
    }

    /// Drops the records that a file has overtaken. `content` gives what the files say of an object now; `certain` is false
    /// when an object that they do not have may only be unreadable at present.
    pub(super) fn settle(&mut self, certain: bool, content: impl Fn(&ObjectKey) -> Option<String>) {
        let mut overtaken = Vec::new();
        for (key, record) in &mut self.records {
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
        for key in overtaken {
            if let Err(error) = self.forget(&key) {
                tracing::warn!(object = %key, %error, "an overtaken record cannot be removed");
            }
        }
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
        self.texts.remove(&path);
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
        self.texts.insert(path, text);
        Ok(())
    }
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
