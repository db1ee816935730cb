//! Frames (RFC 9113 sections 4 and 6): their names, and how they are laid out.

/// What each direction of a client's connection begins with (section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head.
pub(in crate::codec) const HEAD: usize = 9;

/// The largest payload that everybody takes, and that we take (SETTINGS_MAX_FRAME_SIZE by default).
pub(in crate::codec) const MAX_PAYLOAD: usize = 16_384;

/// Windows before anybody says otherwise (section 6.9.2), and how far they may open.
pub(in crate::codec) const DEFAULT_WINDOW: u32 = 65_535;
pub(in crate::codec) const MAX_WINDOW: i64 = (1 << 31) - 1;

/// The largest stream identifier.
pub(in crate::codec) const MAX_ID: u32 = (1 << 31) - 1;

/// Types of frames (section 6).
pub(in crate::codec) mod kind {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const PRIORITY: u8 = 0x2;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PUSH_PROMISE: u8 = 0x5;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;
}

pub(in crate::codec) mod flag {
    /// Of SETTINGS and PING.
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Identifiers of settings (section 6.5.2).
pub(in crate::codec) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 0x1;
    pub(crate) const ENABLE_PUSH: u16 = 0x2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 0x5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
    /// RFC 8441 section 3.
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
}

/// Error codes (section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) u32);

impl Reason {
    pub(crate) const NO_ERROR: Self = Self(0x0);
    pub(crate) const PROTOCOL_ERROR: Self = Self(0x1);
    pub(crate) const INTERNAL_ERROR: Self = Self(0x2);
    pub(crate) const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub(crate) const STREAM_CLOSED: Self = Self(0x5);
    pub(crate) const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub(crate) const REFUSED_STREAM: Self = Self(0x7);
    pub(crate) const CANCEL: Self = Self(0x8);
    pub(crate) const COMPRESSION_ERROR: Self = Self(0x9);
    pub(crate) const ENHANCE_YOUR_CALM: Self = Self(0xb);
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codec) struct Head {
    pub(in crate::codec) length: usize,
    pub(in crate::codec) kind: u8,
    pub(in crate::codec) flags: u8,
    pub(in crate::codec) stream: u32,
}

impl Head {
    /// From the first bytes of a buffer that holds at least as many.
    pub(in crate::codec) fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, rest @ ..] = bytes.first_chunk::<HEAD>()?;
        Some(Self {
            length: usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c),
            kind: *kind,
            flags: *flags,
            // The reserved bit has no meaning (section 4.1).
            stream: u32::from_be_bytes(*rest) & MAX_ID,
        })
    }

    pub(in crate::codec) fn bytes(self) -> [u8; HEAD] {
        let [_, length @ ..] = (self.length as u32).to_be_bytes();
        let mut head = [0; HEAD];
        head[..3].copy_from_slice(&length);
        head[3] = self.kind;
        head[4] = self.flags;
        head[5..].copy_from_slice(&self.stream.to_be_bytes());
        head
    }

    pub(in crate::codec) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The first four bytes of a payload, without the reserved bit.
pub(in crate::codec) fn word(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Takes padding off (section 6.1); none if there is more of it than payload.
pub(in crate::codec) fn unpadded(head: Head, payload: &[u8]) -> Option<std::ops::Range<usize>> {
    if !head.has(flag::PADDED) {
        return Some(0..payload.len());
    }
    let padding = usize::from(*payload.first()?);
    let end = payload.len().checked_sub(padding)?;
    (end >= 1).then_some(1..end)
}
