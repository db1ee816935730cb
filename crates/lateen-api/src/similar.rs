//! "Did you mean": the known word nearest to a mistyped one.

/// The word of `known` that differs from `word` by the fewest typing errors, if they are few for its length.
pub fn did_you_mean<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    const LONGEST: usize = 64;
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let folded = word.replace(['_', '-'], "").to_lowercase();
    known
        .iter()
        .map(|candidate| (distance(&folded, &candidate.replace(['_', '-'], "").to_lowercase()), *candidate))
        .filter(|(errors, candidate)| *errors <= (candidate.len().max(word.len()) / 3).clamp(1, 3))
        .min_by_key(|(errors, _)| *errors)
        .map(|(_, candidate)| candidate)
}

/// Letters added, left out, replaced, or swapped with their neighbour (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let mut best = (last[column] + usize::from(a != b)).min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *a == to[column - 1] && from[row - 1] == *b {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_slips_are_understood_and_other_words_are_not() {
        let known = ["weight", "destination", "headers", "match", "perTryTimeout", "http2MaxRequests"];
        let cases = [
            ("wieght", Some("weight")),
            ("weigth", Some("weight")),
            ("Destination", Some("destination")),
            ("per_try_timeout", Some("perTryTimeout")),
            ("matches", Some("match")),
            ("http2MaxRequest", Some("http2MaxRequests")),
            ("retries", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(did_you_mean(word, &known), expected, "{word}");
        }
    }
}
