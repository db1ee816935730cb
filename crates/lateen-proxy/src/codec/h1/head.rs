//! What heads of requests and responses have in common: their fields.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::Refusal;

/// Room for parsed fields on the stack; a higher limit of fields costs an allocation for each head.
const ROOM: usize = 128;

/// A parsed head's pieces by where they lie in it, so that they can share its buffer once it is cut off.
#[derive(Default)]
pub(super) struct Spans {
    base: usize,
    fields: SmallVec<[(Span, Span); 24]>,
}

#[derive(Clone, Copy)]
pub(super) struct Span(u32, u32);

impl Spans {
    /// Notes the fields of `head`. Filled where they are, because they are large to move.
    pub(super) fn fill(&mut self, head: &[u8], fields: &[httparse::Header<'_>]) {
        self.base = head.as_ptr() as usize;
        self.fields.reserve(fields.len());
        for field in fields {
            let spans = (self.of(field.name.as_bytes()), self.of(field.value));
            self.fields.push(spans);
        }
    }

    /// Of a piece of the head.
    pub(super) fn of(&self, piece: &[u8]) -> Span {
        // A head is far shorter than 4 GiB.
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Span(short(piece.as_ptr() as usize - self.base), short(piece.len()))
    }

    /// The fields, once the head is cut off: names in lower case, and values as they lie in `head`.
    pub(super) fn fields<'a>(
        &'a self,
        head: &'a Bytes,
    ) -> impl ExactSizeIterator<Item = Result<(HeaderName, Bytes), Refusal>> {
        self.fields.iter().map(|(name, value)| {
            let name =
                HeaderName::from_bytes(&head[name.range()]).map_err(|_| Refusal::Bad("http1.invalid_characters"))?;
            Ok((name, head.slice(value.range())))
        })
    }
}

impl Span {
    pub(super) fn range(self) -> std::ops::Range<usize> {
        self.0 as usize..self.0 as usize + self.1 as usize
    }
}

pub(super) fn value(bytes: Bytes) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_maybe_shared(bytes).map_err(|_| Refusal::Bad("http1.invalid_characters"))
}

/// Calls `parse` with room for one field more than `limit`, so that too many can be told from enough.
pub(super) fn with_room<'b, T>(limit: usize, parse: impl FnOnce(&mut [MaybeUninit<httparse::Header<'b>>]) -> T) -> T {
    if limit < ROOM {
        parse(&mut [const { MaybeUninit::uninit() }; ROOM][..=limit])
    } else {
        parse(&mut std::iter::repeat_with(MaybeUninit::uninit).take(limit + 1).collect::<Vec<_>>())
    }
}
