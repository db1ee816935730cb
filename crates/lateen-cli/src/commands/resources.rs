//! Which objects a command is about, as kubectl's users write it: `vs`, `vs,dr`, `vs reviews ratings`, `vs/reviews`, `all`.

use lateen_api::Kind;
use lateen_api::similar::did_you_mean;

use super::Misuse;

/// What the words of a command line choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chosen {
    /// All objects of these kinds.
    Kinds(Vec<Kind>),
    /// These objects.
    Named(Vec<(Kind, String)>),
}

/// The kinds that kubectl shows for `all`, as far as they are known here.
const ALL: [Kind; 3] = [Kind::Pod, Kind::Service, Kind::Deployment];

impl Chosen {
    /// Either every word is `KIND/NAME`, or the first one is a list of kinds and the others are names.
    pub(super) fn parse(words: &[String]) -> anyhow::Result<Self> {
        if words.iter().any(|word| word.contains('/')) {
            let named = words.iter().map(|word| match word.split_once('/') {
                Some((word, name)) if !name.is_empty() => Ok((kind(word)?, name.to_owned())),
                _ => Err(Misuse::of(format!("`{word}`: with KIND/NAME, every argument has this form"))),
            });
            return Ok(Self::Named(named.collect::<anyhow::Result<_>>()?));
        }
        let [kinds, names @ ..] = words else {
            return Err(Misuse::of(
                "say which kind: for instance vs, dr, gw, se, pa, ap, po, svc, deploy, or all".to_owned(),
            ));
        };
        let kinds = kinds_of(kinds)?;
        if names.is_empty() {
            return Ok(Self::Kinds(kinds));
        }
        let named = kinds.iter().flat_map(|kind| names.iter().map(|name| (*kind, name.clone())));
        Ok(Self::Named(named.collect()))
    }
}

fn kinds_of(list: &str) -> anyhow::Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for word in list.split(',') {
        match word {
            "all" => kinds.extend(ALL),
            // Istio's CRDs are in this category.
            "istio-io" => kinds.extend(Kind::ALL.iter().filter(|kind| kind.group().ends_with(".istio.io"))),
            word => kinds.push(kind(word)?),
        }
    }
    Ok(kinds)
}

/// A kind by any of its names; the error says which one may have been meant.
pub(super) fn kind(word: &str) -> anyhow::Result<Kind> {
    word.parse().map_err(|_| {
        let known: Vec<String> = Kind::ALL
            .iter()
            .flat_map(|kind| {
                let singular = kind.name().to_lowercase();
                [kind.plural().to_owned(), singular]
                    .into_iter()
                    .chain(kind.short_names().iter().map(|&short| short.to_owned()))
            })
            .collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        Misuse::of(match did_you_mean(word, &known) {
            Some(meant) => format!("there is no kind `{word}`, did you mean `{meant}`?"),
            None => format!("there is no kind `{word}`; there are {}", all_kinds()),
        })
    })
}

fn all_kinds() -> String {
    let words: Vec<String> = Kind::ALL
        .iter()
        .map(|kind| match kind.short_names() {
            [short, ..] => format!("{} ({short})", kind.plural()),
            [] => kind.plural().to_owned(),
        })
        .collect();
    words.join(", ")
}

/// `virtualservice.networking.istio.io/reviews`, as kubectl names an object.
pub(super) fn full_name(kind: Kind, name: &str) -> String {
    let group = kind.group();
    let dot = if group.is_empty() { "" } else { "." };
    format!("{}{dot}{group}/{name}", kind.name().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(words: &str) -> Result<Chosen, String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Chosen::parse(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn kinds_and_names_are_understood_as_kubectl_does() {
        let named = |list: &[(Kind, &str)]| {
            Ok(Chosen::Named(list.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect()))
        };
        assert_eq!(chosen("vs"), Ok(Chosen::Kinds(vec![Kind::VirtualService])));
        assert_eq!(chosen("po,svc"), Ok(Chosen::Kinds(vec![Kind::Pod, Kind::Service])));
        assert_eq!(chosen("all"), Ok(Chosen::Kinds(ALL.to_vec())));
        assert_eq!(chosen("VirtualServices.networking.istio.io"), Ok(Chosen::Kinds(vec![Kind::VirtualService])));
        assert_eq!(chosen("vs a b"), named(&[(Kind::VirtualService, "a"), (Kind::VirtualService, "b")]));
        assert_eq!(chosen("vs/a dr/b"), named(&[(Kind::VirtualService, "a"), (Kind::DestinationRule, "b")]));
    }

    #[test]
    fn what_is_wrong_is_told_with_what_may_have_been_meant() {
        assert_eq!(
            chosen("virtualservce"),
            Err("there is no kind `virtualservce`, did you mean `virtualservice`?".to_owned())
        );
        assert!(chosen("nonsense").unwrap_err().contains("virtualservices (vs)"));
        assert!(chosen("vs/a b").unwrap_err().contains("`b`: with KIND/NAME"));
        assert!(chosen("").unwrap_err().starts_with("say which kind"));
    }
}
