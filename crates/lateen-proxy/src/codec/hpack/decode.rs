//! Header blocks to fields.

use std::collections::VecDeque;

use super::field::{Field, Name, fixed};
use super::{FIRST_DYNAMIC, OVERHEAD, TABLE_SIZE, huffman};

/// The block cannot be read, and so no later one of its connection (RFC 9113 section 4.3: COMPRESSION_ERROR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// One direction of a connection, from the peer to us.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The newest last, each with its size.
    table: VecDeque<(Field, usize)>,
    size: usize,
    most: usize,
    /// Unpacked strings.
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Room for unpacked strings is given back above this.
const SCRATCH: usize = 4096;

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { table: VecDeque::new(), size: 0, most: TABLE_SIZE, name: Vec::new(), value: Vec::new() }
    }

    /// Reads a whole block; `each` gets its fields in their order, each with the size it counts for in a header list
    /// (RFC 9113 section 6.5.2). No field is larger than what was sent, unpacked, or what is in the table.
    ///
    /// # Errors
    /// It is broken; `each` may have been given some of its fields.
    pub(crate) fn decode(&mut self, mut block: &[u8], mut each: impl FnMut(Field, usize)) -> Result<(), Broken> {
        let mut begins = true;
        while let Some(first) = block.first() {
            match first {
                0x80.. => {
                    let (field, size) = self.entry(integer(&mut block, 7)?)?;
                    each(field, size);
                }
                0x40.. => {
                    let (field, size) = self.literal(&mut block, 6, false)?;
                    each(field.clone(), size);
                    self.insert(field, size);
                }
                0x20.. => {
                    // Section 4.2: only where a block begins.
                    let most = integer(&mut block, 5)?;
                    if !begins || most > TABLE_SIZE {
                        return Err(Broken);
                    }
                    self.most = most;
                    self.evict(0);
                    continue;
                }
                _ => {
                    let never_indexed = first & 0x10 != 0;
                    let (field, size) = self.literal(&mut block, 4, never_indexed)?;
                    each(field, size);
                }
            }
            begins = false;
        }
        if self.name.capacity().max(self.value.capacity()) > SCRATCH {
            (self.name, self.value) = Default::default();
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(Field, usize), Broken> {
        match index.checked_sub(FIRST_DYNAMIC) {
            None if index == 0 => Err(Broken),
            None => Ok(fixed(index)),
            Some(from_newest) => {
                let place = self.table.len().checked_sub(from_newest + 1).ok_or(Broken)?;
                self.table.get(place).cloned().ok_or(Broken)
            }
        }
    }

    fn literal(&mut self, block: &mut &[u8], prefix: u32, sensitive: bool) -> Result<(Field, usize), Broken> {
        let index = integer(block, prefix)?;
        let (name, name_size) = if index == 0 {
            let text = string(block, &mut self.name)?;
            (Name::parse(text), text.len())
        } else {
            let (field, size) = self.entry(index)?;
            let name = field.name();
            let length = match &name {
                Name::Plain(name) => name.as_str().len(),
                Name::Method | Name::Scheme | Name::Status => ":method".len(),
                Name::Authority => ":authority".len(),
                Name::Protocol => ":protocol".len(),
                Name::Path => ":path".len(),
                // Its text is not kept; it is not longer than this.
                Name::Malformed => size - OVERHEAD,
            };
            (name, length)
        };
        let value = string(block, &mut self.value)?;
        let size = name_size + value.len() + OVERHEAD;
        Ok((name.with(value, sensitive), size))
    }

    fn insert(&mut self, field: Field, size: usize) {
        // Section 4.4: one that does not fit empties the table.
        self.evict(size);
        if size <= self.most {
            self.size += size;
            self.table.push_back((field, size));
        }
    }

    /// Makes room for an entry.
    fn evict(&mut self, size: usize) {
        while self.size + size > self.most {
            let Some((_, oldest)) = self.table.pop_front() else { return };
            self.size -= oldest;
        }
    }
}

/// Section 5.1: the low bits of the first byte, and more bytes if those are all ones.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Broken> {
    let (first, mut rest) = block.split_first().ok_or(Broken)?;
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (byte, behind) = rest.split_first().ok_or(Broken)?;
            rest = behind;
            // No index or length that can be right takes more.
            if shift > 21 {
                return Err(Broken);
            }
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// Section 5.2. A packed string is unpacked into `scratch`.
fn string<'s, 'b: 's>(block: &mut &'b [u8], scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Broken> {
    let packed = block.first().ok_or(Broken)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Broken)?;
    *block = rest;
    if !packed {
        return Ok(text);
    }
    scratch.clear();
    huffman::unpack(text, scratch).map_err(|_| Broken)?;
    Ok(scratch)
}
