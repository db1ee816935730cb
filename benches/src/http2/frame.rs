//! Frames, as bytes in and out.

use anyhow::bail;

/// What a client sends first (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest window there is: nobody waits for us.
pub(crate) const MAX_WINDOW: u32 = 0x7fff_ffff;

const HEAD: usize = 9;
const MAX_PAYLOAD: usize = 16_384;

pub(crate) mod flags {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Headers,
    Reset,
    Settings,
    Ping,
    GoAway,
    WindowUpdate,
    /// Of no concern here.
    Other,
}

/// The numbers of RFC 9113, 6.
impl Kind {
    fn from_number(number: u8) -> anyhow::Result<Self> {
        Ok(match number {
            0 => Self::Data,
            1 => Self::Headers,
            3 => Self::Reset,
            4 => Self::Settings,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            // No header block here is longer than a frame.
            9 => bail!("a CONTINUATION frame"),
            _ => Self::Other,
        })
    }

    fn number(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Reset => 3,
            Self::Settings => 4,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Other => unreachable!("only known frames are sent"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    /// Without padding and priority.
    pub(crate) payload: &'a [u8],
    /// What the payload counts for in the windows.
    pub(crate) length: usize,
}

impl Frame<'_> {
    pub(crate) fn is_ack(&self) -> bool {
        self.flags & flags::ACK != 0
    }

    pub(crate) fn ends_stream(&self) -> bool {
        self.flags & flags::END_STREAM != 0
    }

    /// The number that WINDOW_UPDATE, RST_STREAM and (in its second half) GOAWAY carry.
    pub(crate) fn number(&self, at: usize) -> anyhow::Result<u32> {
        match self.payload.get(at..at + 4) {
            Some(&[a, b, c, d]) => Ok(u32::from_be_bytes([a, b, c, d])),
            _ => bail!("a frame that is too short: {self:?}"),
        }
    }

    /// Identifiers and values of SETTINGS.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        let (entries, _) = self.payload.as_chunks::<6>();
        entries.iter().map(|&[a, b, c, d, e, f]| (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])))
    }
}

/// The first frame of these bytes, and how long it is; `None` while it is not complete.
pub(crate) fn take(bytes: &[u8]) -> anyhow::Result<Option<(Frame<'_>, usize)>> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let &[l1, l2, l3, kind, flags, s1, s2, s3, s4] = head;
    let length = u32::from_be_bytes([0, l1, l2, l3]) as usize;
    if length > MAX_PAYLOAD {
        bail!("a frame of {length} bytes");
    }
    let Some(mut payload) = rest.get(..length) else { return Ok(None) };
    let kind = Kind::from_number(kind)?;
    let stream = u32::from_be_bytes([s1, s2, s3, s4]) & MAX_WINDOW;
    if kind == Kind::Headers && flags & flags::END_HEADERS == 0 {
        bail!("a header block longer than a frame");
    }
    if matches!(kind, Kind::Data | Kind::Headers) && flags & flags::PADDED != 0 {
        let (&padding, padded) = payload.split_first().unwrap_or((&0, &[]));
        let Some(end) = padded.len().checked_sub(padding.into()) else { bail!("more padding than frame") };
        payload = &padded[..end];
    }
    if kind == Kind::Headers && flags & flags::PRIORITY != 0 {
        payload = payload.get(5..).unwrap_or_default();
    }
    Ok(Some((Frame { kind, flags, stream, payload, length }, HEAD + length)))
}

pub(crate) fn put(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    let [_, l1, l2, l3] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[l1, l2, l3, kind.number(), flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

pub(crate) fn put_window_update(out: &mut Vec<u8>, increment: u32) {
    put(out, Kind::WindowUpdate, 0, 0, &increment.to_be_bytes());
}

/// Either end's SETTINGS, and the window of the connection opened as far as it goes.
pub(crate) fn begin(out: &mut Vec<u8>) {
    let mut settings = Vec::new();
    for (identifier, value) in [(3_u16, 1024_u32), (4, MAX_WINDOW)] {
        settings.extend_from_slice(&identifier.to_be_bytes());
        settings.extend_from_slice(&value.to_be_bytes());
    }
    put(out, Kind::Settings, 0, 0, &settings);
    put_window_update(out, MAX_WINDOW - 65_535);
}
