//! How objects choose workloads: Istio's selectors and target references, Kubernetes' label selector.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::meta::StringMap;

/// `{matchLabels: {…}}`, how Istio's policy kinds, `DestinationRule` and `ProxyConfig` select workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MatchLabels {
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub match_labels: StringMap,
}

impl MatchLabels {
    /// True if every label asked for is there with its value; an empty selector fits everything.
    pub fn matches(&self, labels: &StringMap) -> bool {
        is_subset(&self.match_labels, labels)
    }
}

/// `{labels: {…}}`, how `Sidecar` and `ServiceEntry` do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadSelector {
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub labels: StringMap,
}

impl WorkloadSelector {
    /// True if every label asked for is there with its value; an empty selector fits everything.
    pub fn matches(&self, labels: &StringMap) -> bool {
        is_subset(&self.labels, labels)
    }
}

/// True if `wanted`'s pairs are all among `labels`.
pub fn is_subset(wanted: &StringMap, labels: &StringMap) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Istio's `PolicyTargetReference`: a policy bound to a Gateway, GatewayClass, Service or ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TargetRef {
    pub group: String,
    pub kind: String,
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

impl TargetRef {
    /// Whether it is to a Gateway of the Gateway API.
    pub fn is_gateway(&self) -> bool {
        (self.group.as_str(), self.kind.as_str()) == ("gateway.networking.k8s.io", "Gateway")
    }
}

/// Kubernetes `LabelSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LabelSelector {
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub match_labels: StringMap,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One condition of a Kubernetes `LabelSelector`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelRequirement {
    pub key: String,
    pub operator: LabelOperator,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// The operators of a label condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// True if every label and every condition holds; an empty selector fits everything.
    pub fn matches(&self, labels: &StringMap) -> bool {
        is_subset(&self.match_labels, labels) && self.match_expressions.iter().all(|one| one.matches(labels))
    }
}

impl LabelRequirement {
    fn matches(&self, labels: &StringMap) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => value.is_some_and(|value| self.values.contains(value)),
            LabelOperator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

impl FromStr for LabelSelector {
    type Err = String;

    /// What kubectl takes for `-l`: `app=reviews,version!=v1,env in (dev,test),tier notin (db),canary,!legacy`.
    fn from_str(text: &str) -> Result<Self, String> {
        let conditions = split_outside_parentheses(text);
        let match_expressions = conditions.into_iter().map(requirement).collect::<Result<_, _>>()?;
        Ok(Self { match_labels: StringMap::new(), match_expressions })
    }
}

/// At commas, but not at those of `in (a,b)`.
fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => inside = true,
            ')' => inside = false,
            ',' if !inside => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(text: &str) -> Result<LabelRequirement, String> {
    let text = text.trim();
    let wrong =
        || format!("`{text}` is no condition on labels; write key=value, key!=value, key in (a,b), key or !key");
    let made = |key: &str, operator, values: Vec<&str>| {
        let key = key.trim();
        let is_key = |key: &str| {
            !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
        };
        let values: Vec<String> = values.into_iter().map(|value| value.trim().to_owned()).collect();
        if is_key(key) { Ok(LabelRequirement { key: key.to_owned(), operator, values }) } else { Err(wrong()) }
    };
    if let Some((left, list)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let values = list.split(',').collect();
        return match left.trim().rsplit_once(char::is_whitespace) {
            Some((key, "in")) => made(key, LabelOperator::In, values),
            Some((key, "notin")) => made(key, LabelOperator::NotIn, values),
            _ => Err(wrong()),
        };
    }
    if let Some((key, value)) = text.split_once("!=") {
        return made(key, LabelOperator::NotIn, vec![value]);
    }
    if let Some((key, value)) = text.split_once('=') {
        return made(key, LabelOperator::In, vec![value.strip_prefix('=').unwrap_or(value)]);
    }
    match text.strip_prefix('!') {
        Some(key) => made(key, LabelOperator::DoesNotExist, Vec::new()),
        None => made(text, LabelOperator::Exists, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectls_selectors_are_understood() {
        let labels: StringMap = [("app", "reviews"), ("version", "v2"), ("canary", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        for (selector, fits) in [
            ("app=reviews", true),
            ("app==reviews,version=v2", true),
            ("app=reviews,version!=v2", false),
            ("version in (v1, v2)", true),
            ("version notin (v1,v2),app=reviews", false),
            ("tier!=db", true),
            ("canary", true),
            ("!canary", false),
            ("canary=", true),
        ] {
            assert_eq!(selector.parse::<LabelSelector>().unwrap().matches(&labels), fits, "{selector}");
        }
        for wrong in ["", "app=a,", "=a", "app in a", "app within (a)", "a b"] {
            assert!(wrong.parse::<LabelSelector>().is_err(), "{wrong}");
        }
    }
}
