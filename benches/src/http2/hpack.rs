//! As much of HPACK (RFC 7541) as it takes to send a few fixed fields, and to see whether an answer reports success.

use anyhow::{Context as _, bail};

/// Writes fields, each spelt out once per connection and a number from then on.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// What the dynamic table holds, the oldest first. The few fields here never fill it.
    known: Vec<(&'static str, &'static str)>,
}

/// The dynamic table begins behind the static one (RFC 7541, 2.3.3).
const FIRST_DYNAMIC: usize = 62;

impl Encoder {
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, name: &'static str, value: &'static str) {
        if let Some(at) = self.known.iter().position(|known| *known == (name, value)) {
            let index = FIRST_DYNAMIC + self.known.len() - 1 - at;
            debug_assert!(index < 0x7f, "the index fits its prefix");
            out.push(0x80 | index as u8);
            return;
        }
        // A literal that is to be remembered, with a new name (6.2.1).
        out.push(0x40);
        for text in [name, value] {
            debug_assert!(text.len() < 0x7f, "the length fits its prefix");
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
        self.known.push((name, value));
    }
}

/// Reads header blocks only for `:status` and `grpc-status`.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// What the dynamic table holds, the oldest first. Nothing is ever removed by size: an encoder does not refer to what
    /// has been evicted, and indices count from the newest.
    table: std::collections::VecDeque<Field>,
}

/// What is to be known of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    name: Name,
    success: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Status,
    GrpcStatus,
    Other,
}

/// What a block says; `None` where it does not have the field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) status: Option<bool>,
    pub(crate) grpc_status: Option<bool>,
}

/// No table of the default size (4,096 bytes, at least 32 per entry) holds more.
const MAX_ENTRIES: usize = 128;

/// Strings come as they are or in the Huffman code of appendix B: these are `grpc-status`, `0` and `200` in it.
const GRPC_STATUS: [&[u8]; 2] = [b"grpc-status", &[0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f]];
const ZERO: [&[u8]; 2] = [b"0", &[0x07]];
const TWO_HUNDRED: [&[u8]; 2] = [b"200", &[0x10, 0x01]];

impl Reader {
    pub(crate) fn read(&mut self, mut block: &[u8]) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict::default();
        while let Some(&first) = block.first() {
            let field = match first {
                0x80.. => self.at(integer(&mut block, 7)?)?,
                0x40.. => {
                    let field = self.literal(&mut block, 6)?;
                    self.table.push_back(field);
                    if self.table.len() > MAX_ENTRIES {
                        self.table.pop_front();
                    }
                    field
                }
                // A new size of the table.
                0x20.. => {
                    integer(&mut block, 5)?;
                    continue;
                }
                _ => self.literal(&mut block, 4)?,
            };
            match field.name {
                Name::Status => verdict.status = Some(field.success),
                Name::GrpcStatus => verdict.grpc_status = Some(field.success),
                Name::Other => {}
            }
        }
        Ok(verdict)
    }

    fn at(&self, index: usize) -> anyhow::Result<Field> {
        Ok(match index {
            0 => bail!("a field of index 0"),
            8..=14 => Field { name: Name::Status, success: index == 8 },
            1..FIRST_DYNAMIC => Field { name: Name::Other, success: false },
            _ => {
                let back = index - FIRST_DYNAMIC + 1;
                let at = self.table.len().checked_sub(back).context("a field that the table does not hold")?;
                self.table[at]
            }
        })
    }

    fn literal(&self, block: &mut &[u8], prefix: u32) -> anyhow::Result<Field> {
        let index = integer(block, prefix)?;
        let name = if index != 0 {
            self.at(index)?.name
        } else if GRPC_STATUS.contains(&string(block)?) {
            Name::GrpcStatus
        } else {
            Name::Other
        };
        let value = string(block)?;
        let success = match name {
            Name::Status => TWO_HUNDRED.contains(&value),
            Name::GrpcStatus => ZERO.contains(&value),
            Name::Other => false,
        };
        Ok(Field { name, success })
    }
}

/// RFC 7541, 5.1.
fn integer(block: &mut &[u8], prefix: u32) -> anyhow::Result<usize> {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(byte(block)?) & mask;
    if value < mask {
        return Ok(value);
    }
    for shift in [0, 7, 14] {
        let next = byte(block)?;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number without end")
}

/// RFC 7541, 5.2, as it stands there.
fn string<'a>(block: &mut &'a [u8]) -> anyhow::Result<&'a [u8]> {
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).context("a string that is cut off")?;
    *block = rest;
    Ok(text)
}

fn byte(block: &mut &[u8]) -> anyhow::Result<u8> {
    let (first, rest) = block.split_first().context("a header block that is cut off")?;
    *block = rest;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    use super::{Encoder, Reader, Verdict};

    fn verdict(status: Option<bool>, grpc_status: Option<bool>) -> Verdict {
        Verdict { status, grpc_status }
    }

    #[test]
    fn what_is_remembered_is_read_as_what_it_was() {
        let (mut encoder, mut reader) = (Encoder::default(), Reader::default());
        let mut lengths = Vec::new();
        for _ in 0..2 {
            let mut block = vec![0x88];
            encoder.put(&mut block, "content-type", "application/grpc");
            encoder.put(&mut block, "grpc-status", "0");
            encoder.put(&mut block, "x-last", "1");
            lengths.push(block.len());
            assert_eq!(reader.read(&block).unwrap(), verdict(Some(true), Some(true)));
        }
        assert_eq!(lengths[1], 4);
    }

    #[test]
    fn every_way_to_write_a_status_is_read() {
        let rows: [(&[u8], Verdict); 7] = [
            (&[0x88], verdict(Some(true), None)),
            (&[0x8d], verdict(Some(false), None)),
            (b"\x48\x03200", verdict(Some(true), None)),
            (b"\x08\x82\x10\x01", verdict(Some(true), None)),
            (b"\x08\x03503", verdict(Some(false), None)),
            (b"\x00\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x81\x07", verdict(None, Some(true))),
            (b"\x10\x0bgrpc-status\x0214", verdict(None, Some(false))),
        ];
        for (block, expected) in rows {
            assert_eq!(Reader::default().read(block).unwrap(), expected, "{block:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_an_error() {
        for block in [&b"\x40\x05grpc"[..], b"\xbe", b"\x80", b"\xff", b"\x00\x01a"] {
            assert!(Reader::default().read(block).is_err(), "{block:?}");
        }
    }
}
