//! The document of figures, docs/performance.md: each benchmark writes its own part, between two comments.

use anyhow::Context as _;

use crate::root;

/// Puts a text in place of what stood between `<!-- begin: PART -->` and `<!-- end: PART -->`.
pub(crate) fn replace(part: &str, text: &str) -> anyhow::Result<()> {
    let path = root().join("docs/performance.md");
    let document = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let document = with_part(&document, part, text)?;
    std::fs::write(&path, document).with_context(|| format!("write {}", path.display()))
}

fn with_part(document: &str, part: &str, text: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- begin: {part} -->"), format!("<!-- end: {part} -->"));
    let (before, rest) = document.split_once(&begin).with_context(|| format!("the document has no {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("the document has no {end}"))?;
    Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_takes_the_place_of_the_last_one() {
        let document = "a\n<!-- begin: x -->\nold\n<!-- end: x -->\nb\n<!-- begin: y -->\n<!-- end: y -->\n";
        let want = "a\n<!-- begin: x -->\n\nnew\n\n<!-- end: x -->\nb\n<!-- begin: y -->\n<!-- end: y -->\n";
        assert_eq!(with_part(document, "x", "new\n").expect("it is there"), want);
        assert!(with_part(document, "z", "new").is_err());
    }
}
