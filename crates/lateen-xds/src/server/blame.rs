//! Which resources a refusal is about: the protocol has only a text to say so.

use std::sync::Arc;

/// An error text is kept up to this length.
const MESSAGE_BYTES: usize = 4096;

/// A refusal's text, cut to a length that can be kept.
pub(super) fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES)]
}

/// Of the names in a refused response, those that the text mentions, and the others.
pub(super) fn mentioned(message: &str, names: &[Arc<str>]) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
    names.iter().cloned().partition(|name| mentions(message, name))
}

/// What the text says of one resource: its own line (as our client writes, `name: reason`), or all of it.
pub(super) fn reason<'a>(message: &'a str, name: &str) -> &'a str {
    let own_line = message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    own_line.unwrap_or(message)
}

/// Whether a text has a resource name as a word of its own. Names are full of `|`, `.`, `-` and `_`.
fn mentions(text: &str, name: &str) -> bool {
    if name.is_empty() {
        return false;
    }
    let inner = |c: char| c.is_alphanumeric() || matches!(c, '|' | '-' | '_');
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let mut after = text[at + name.len()..].chars();
        let next = after.next();
        let continued = match next {
            // The end of a sentence, or the middle of a longer name.
            Some('.') => after.next().is_some_and(inner),
            Some(c) => inner(c),
            None => false,
        };
        !before.is_some_and(|c| inner(c) || c == '.') && !continued
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_as_a_word_only() {
        for text in ["bad cluster(s) a.b: no", "a.b", "see a.b.", "'a.b'"] {
            assert!(mentions(text, "a.b"), "{text}");
        }
        for text in ["a.b.c: no", "x|a.b", "ya.b", "a.b-1", "z.a.b", ""] {
            assert!(!mentions(text, "a.b"), "{text}");
        }
    }

    #[test]
    fn a_line_of_its_own_is_the_reason() {
        assert_eq!(reason("a: no\nb: never", "b"), "never");
        assert_eq!(reason("cluster(s) a, b are bad", "b"), "cluster(s) a, b are bad");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(4000)).len(), 4096);
        assert_eq!(cut(&format!("x{}", "ä".repeat(4000))).len(), 4095);
    }
}
