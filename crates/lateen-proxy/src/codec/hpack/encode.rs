//! Fields to header blocks.
//!
//! A field goes into the table when it comes for the second time: what differs from message to message (ids, lengths, times)
//! would only push out what does not. A name that no entry has goes in with its first value, so that it is spelled out once.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use super::field::fixed_name;
use super::{FIRST_DYNAMIC, OVERHEAD, TABLE_SIZE};

/// Whether a field may be kept in tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Yes,
    /// Nobody on the way may keep it (section 7.1.3): tables give secrets away to those who can try values.
    Never,
}

/// One direction of a connection, from us to the peer.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// The oldest first.
    table: VecDeque<Entry>,
    /// The number of the first; each insertion has the next number.
    first: u32,
    size: usize,
    most: usize,
    /// The peer's limit changed: the smallest that it was since the last block.
    resized: Option<usize>,
    hints: Option<Box<Hints>>,
}

#[derive(Debug)]
struct Entry {
    /// Name and value.
    text: Box<[u8]>,
    name: usize,
}

const SLOTS: usize = 256;

/// Where entries may be, by hash; what stands there is checked.
#[derive(Debug)]
struct Hints {
    fields: [u32; SLOTS],
    names: [u32; SLOTS],
    /// Hashes of fields that came once.
    seen: [u32; SLOTS],
}

impl Entry {
    fn is(&self, name: &str, value: &[u8]) -> bool {
        self.text.len() == name.len() + value.len() && self.has(name) && self.text[self.name..] == *value
    }

    fn has(&self, name: &str) -> bool {
        self.name == name.len() && self.text[..self.name] == *name.as_bytes()
    }

    fn size(&self) -> usize {
        self.text.len() + OVERHEAD
    }
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { table: VecDeque::new(), first: 0, size: 0, most: TABLE_SIZE, resized: None, hints: None }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE.
    pub(crate) fn resize(&mut self, most: usize) {
        let most = most.min(TABLE_SIZE);
        if most != self.most || self.resized.is_some() {
            self.resized = Some(self.resized.map_or(most, |smallest| smallest.min(most)));
        }
        self.most = most;
        self.evict(0);
    }

    /// To be called before a block's first field.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        let Some(smallest) = self.resized.take() else { return };
        if smallest < self.most {
            integer(out, 0x20, 5, smallest);
        }
        integer(out, 0x20, 5, self.most);
    }

    /// A field of the static table.
    pub(crate) fn fixed(out: &mut Vec<u8>, index: u8) {
        out.push(0x80 | index);
    }

    pub(crate) fn field(&mut self, out: &mut Vec<u8>, name: &str, value: &[u8], keep: Keep) {
        let name_hash = hash(0, name.as_bytes());
        if keep == Keep::Never {
            return literal(out, (0x10, 4), self.name_index(name, name_hash), name, value);
        }
        let hash = hash(name_hash, value);
        let hints = self
            .hints
            .get_or_insert_with(|| Box::new(Hints { fields: [0; SLOTS], names: [0; SLOTS], seen: [0; SLOTS] }));
        let known = hints.fields[slot(hash)];
        if let Some(place) = self.place(known).filter(|place| self.table[*place].is(name, value)) {
            return integer(out, 0x80, 7, self.index(place));
        }
        let tag = (hash >> 32) as u32;
        let Some(hints) = &mut self.hints else { return };
        let again = std::mem::replace(&mut hints.seen[slot(hash)], tag) == tag;
        let size = name.len() + value.len() + OVERHEAD;
        let fits = size <= self.most / 4;
        let index = self.name_index(name, name_hash);
        if fits && (again || index.is_none()) {
            literal(out, (0x40, 6), index, name, value);
            self.insert(name, value, (hash, name_hash));
        } else {
            literal(out, (0, 4), index, name, value);
        }
    }

    fn name_index(&self, name: &str, hash: u64) -> Option<usize> {
        let hinted = self.hints.as_ref().and_then(|hints| self.place(hints.names[slot(hash)]));
        match hinted.filter(|place| self.table[*place].has(name)) {
            Some(place) => Some(self.index(place)),
            None => fixed_name(name),
        }
    }

    /// Where the entry with a number is, if it is there still.
    fn place(&self, number: u32) -> Option<usize> {
        let place = number.wrapping_sub(self.first) as usize;
        (place < self.table.len()).then_some(place)
    }

    fn index(&self, place: usize) -> usize {
        FIRST_DYNAMIC + self.table.len() - 1 - place
    }

    fn insert(&mut self, name: &str, value: &[u8], (hash, name_hash): (u64, u64)) {
        let entry = Entry { text: [name.as_bytes(), value].concat().into(), name: name.len() };
        self.evict(entry.size());
        let number = self.first.wrapping_add(self.table.len() as u32);
        self.size += entry.size();
        self.table.push_back(entry);
        if let Some(hints) = &mut self.hints {
            hints.fields[slot(hash)] = number;
            hints.names[slot(name_hash)] = number;
        }
    }

    /// Makes room for an entry, as the decoder will.
    fn evict(&mut self, size: usize) {
        while self.size + size > self.most {
            let Some(oldest) = self.table.pop_front() else { return };
            self.size -= oldest.size();
            self.first = self.first.wrapping_add(1);
        }
    }
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(seed).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

fn slot(hash: u64) -> usize {
    hash as usize % SLOTS
}

/// Section 6.2, in the form that says who may keep it.
fn literal(out: &mut Vec<u8>, (form, prefix): (u8, u32), index: Option<usize>, name: &str, value: &[u8]) {
    match index {
        Some(index) => integer(out, form, prefix, index),
        None => {
            out.push(form);
            string(out, name.as_bytes());
        }
    }
    string(out, value);
}

/// Section 5.1.
fn integer(out: &mut Vec<u8>, form: u8, prefix: u32, value: usize) {
    let mask = (1_usize << prefix) - 1;
    if value < mask {
        out.push(form | value as u8);
        return;
    }
    out.push(form | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Section 5.2, never packed.
fn string(out: &mut Vec<u8>, text: &[u8]) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}
