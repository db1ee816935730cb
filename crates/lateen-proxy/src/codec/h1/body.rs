//! Reading message bodies.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use lateen_engine::message::Headers;

use super::{Framing, Refusal, has_bare_line_feed, is_forbidden_trailer};

/// A chunk-size line, with its extensions, may be this long.
const MAX_CHUNK_LINE: usize = 4096;
/// The trailer section may be this long.
const MAX_TRAILERS: usize = 16 << 10;
const MAX_TRAILER_FIELDS: usize = 64;

#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    Data(Bytes),
    /// The end, with what fields came behind a chunked body.
    End(Option<Headers>),
    /// More bytes are needed.
    More,
}

/// Where a body's reading stands.
#[derive(Debug)]
pub(crate) enum Decoder {
    Length(u64),
    Chunk(ChunkState),
    Close,
    Done,
}

#[derive(Debug)]
pub(crate) enum ChunkState {
    Size,
    Data(u64),
    /// The line break behind a chunk's data.
    Break,
    Trailers,
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunk(ChunkState::Size),
            Framing::Close => Self::Close,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// The next piece in `buffer`; `ended` says that no more bytes will come.
    ///
    /// # Errors
    /// A broken chunk, or an end before the end.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut, ended: bool) -> Result<Piece, Refusal> {
        let piece = match self {
            Self::Done => return Ok(Piece::End(None)),
            Self::Close if buffer.is_empty() && ended => {
                *self = Self::Done;
                return Ok(Piece::End(None));
            }
            Self::Close if buffer.is_empty() => Piece::More,
            Self::Close => Piece::Data(buffer.split().freeze()),
            Self::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                *left -= take as u64;
                match (take, *left) {
                    (0, _) => Piece::More,
                    (_, 0) => {
                        let data = buffer.split_to(take).freeze();
                        *self = Self::Done;
                        return Ok(Piece::Data(data));
                    }
                    _ => Piece::Data(buffer.split_to(take).freeze()),
                }
            }
            Self::Chunk(_) => self.chunked(buffer)?,
        };
        if ended && piece == Piece::More {
            return Err(Refusal::Bad("http1.codec_error"));
        }
        Ok(piece)
    }

    fn chunked(&mut self, buffer: &mut BytesMut) -> Result<Piece, Refusal> {
        let bad = Refusal::Bad("http1.codec_error");
        loop {
            let Self::Chunk(state) = self else { return Ok(Piece::End(None)) };
            match state {
                ChunkState::Size => {
                    let Some(end) = line_end(buffer, MAX_CHUNK_LINE)? else { return Ok(Piece::More) };
                    let size = chunk_size(&buffer[..end]).ok_or(bad)?;
                    buffer.advance(end + 2);
                    *state = if size == 0 { ChunkState::Trailers } else { ChunkState::Data(size) };
                }
                ChunkState::Data(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    if take == 0 {
                        return Ok(Piece::More);
                    }
                    *left -= take as u64;
                    if *left == 0 {
                        *state = ChunkState::Break;
                    }
                    return Ok(Piece::Data(buffer.split_to(take).freeze()));
                }
                ChunkState::Break => {
                    if buffer.len() < 2 {
                        return if buffer.first().is_some_and(|byte| *byte != b'\r') {
                            Err(bad)
                        } else {
                            Ok(Piece::More)
                        };
                    }
                    if !buffer.starts_with(b"\r\n") {
                        return Err(bad);
                    }
                    buffer.advance(2);
                    *state = ChunkState::Size;
                }
                ChunkState::Trailers => {
                    let Some(trailers) = trailers(buffer)? else { return Ok(Piece::More) };
                    *self = Self::Done;
                    return Ok(Piece::End(trailers));
                }
            }
        }
    }
}

/// The place of the next CRLF; a line feed alone is refused.
fn line_end(buffer: &[u8], limit: usize) -> Result<Option<usize>, Refusal> {
    match memchr::memchr(b'\n', &buffer[..buffer.len().min(limit)]) {
        Some(at) if at > 0 && buffer[at - 1] == b'\r' => Ok(Some(at - 1)),
        Some(_) => Err(Refusal::Bad("http1.codec_error")),
        None if buffer.len() >= limit => Err(Refusal::Bad("http1.codec_error")),
        None => Ok(None),
    }
}

/// Hexadecimal digits, then nothing or extensions, which are dropped (RFC 9112 section 7.1.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    // Only blanks: what else counts as white space to one reader ends a line to another.
    let blanks = line[digits..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let rest = &line[digits + blanks..];
    if digits == 0 || digits > 15 || !(rest.is_empty() || rest[0] == b';') || rest.contains(&b'\r') {
        return None;
    }
    line[..digits].iter().try_fold(0u64, |sum, digit| Some(sum * 16 + u64::from(char::from(*digit).to_digit(16)?)))
}

/// The trailer section, once it is whole.
fn trailers(buffer: &mut BytesMut) -> Result<Option<Option<Headers>>, Refusal> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Some(None));
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    match httparse::parse_headers(buffer, &mut fields) {
        Ok(httparse::Status::Complete((length, _))) if has_bare_line_feed(&buffer[..length]) => {
            Err(Refusal::Bad("http1.codec_error"))
        }
        Ok(httparse::Status::Complete((length, fields))) => {
            let mut headers = Headers::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes())
                    .map_err(|_| Refusal::Bad("http1.invalid_characters"))?;
                let value =
                    HeaderValue::from_bytes(field.value).map_err(|_| Refusal::Bad("http1.invalid_characters"))?;
                if !is_forbidden_trailer(&name) {
                    headers.append(name, value);
                }
            }
            buffer.advance(length);
            Ok(Some(Some(headers)))
        }
        Ok(httparse::Status::Partial) if buffer.len() < MAX_TRAILERS => Ok(None),
        _ => Err(Refusal::Bad("http1.codec_error")),
    }
}
