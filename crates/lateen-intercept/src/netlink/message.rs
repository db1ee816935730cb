//! One netlink message under construction, and reading the attributes of one received (RFC 3549 section 2.2).

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

/// Set on the type of an attribute that holds attributes.
const NESTED: u16 = libc::NLA_F_NESTED as u16;

/// A message under construction: header, then a fixed part that depends on the protocol, then attributes.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
    doing: String,
}

impl Message {
    /// Starts a message of type `kind` with `NLM_F_REQUEST` and `flags` set. `doing` says in words what the message asks
    /// for; it becomes part of the error when the kernel refuses.
    pub fn new(kind: u16, flags: i32, doing: impl Into<String>) -> Self {
        let flags = flags as u16 | libc::NLM_F_REQUEST as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self { bytes, doing: doing.into() }
    }

    /// Appends the fixed part that follows the header.
    #[must_use]
    pub fn fixed(mut self, part: &[u8]) -> Self {
        self.bytes.extend_from_slice(part);
        self.pad();
        self
    }

    /// Appends an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("callers keep an attribute under 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Appends a string attribute, ended by a NUL.
    pub fn put_str(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
    }

    /// Appends a number in network byte order, as netfilter wants it.
    pub fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Appends a number in the machine's byte order, as rtnetlink wants it.
    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// Appends an attribute that holds what `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("callers keep an attribute under 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
    }

    /// Appends bytes inside a nest (the fixed part of a message that another one contains).
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// What the message asks for, in words.
    pub fn doing(&self) -> &str {
        &self.doing
    }

    /// Adds header flags.
    pub(crate) fn add_flags(&mut self, flags: i32) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags as u16;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// The bytes to send, numbered `sequence`.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("a message is far below 4 GiB");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// The attributes in a received message, as `(kind, value)`; ends at the first one that is cut short.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & !NESTED;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nests_are_measured() {
        let mut message = Message::new(0x0a03, libc::NLM_F_CREATE, "test").fixed(&[2, 0, 0, 0]);
        message.put_str(1, "abcd");
        message.nest(2, |inside| inside.put_be32(1, 0x0102_0304));
        let bytes = message.finish(7);
        assert_eq!(bytes.len(), 16 + 4 + 12 + 12);
        assert_eq!(bytes[0..4], 44u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 0x0a03u16.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x0401u16.to_ne_bytes());
        assert_eq!(bytes[8..12], 7u32.to_ne_bytes());
        let read: Vec<_> = Attributes(&bytes[20..]).collect();
        assert_eq!(read[0], (1, b"abcd\0".as_slice()));
        assert_eq!(read[1].0, 2);
        assert_eq!(Attributes(read[1].1).next(), Some((1, [1, 2, 3, 4].as_slice())));
    }

    #[test]
    fn a_cut_attribute_ends_the_walk() {
        assert_eq!(Attributes(&[8, 0, 1, 0, 9]).next(), None);
        assert_eq!(Attributes(&[2, 0, 1, 0]).next(), None);
        assert_eq!(Attributes(&[]).next(), None);
    }
}
