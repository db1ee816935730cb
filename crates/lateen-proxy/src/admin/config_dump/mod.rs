//! `/config_dump`: the configuration as it came, what is in force of it, what waits and what was refused, as Envoy writes it
//! (`envoy.admin.v3.ConfigDump`). Decoded when asked for.

mod mask;
mod redact;
mod sections;

use http::StatusCode;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::query::Query;
use super::{Answer, json_answer, text};
pub(super) use sections::Origin;
use sections::{Section, sections};

/// The lists of a dump, the message of which they are, and of what type their elements are.
const LISTS: [(&str, &str, &str); 13] = [
    ("static_clusters", "ClustersConfigDump", "StaticCluster"),
    ("dynamic_active_clusters", "ClustersConfigDump", "DynamicCluster"),
    ("dynamic_warming_clusters", "ClustersConfigDump", "DynamicCluster"),
    ("static_endpoint_configs", "EndpointsConfigDump", "StaticEndpointConfig"),
    ("dynamic_endpoint_configs", "EndpointsConfigDump", "DynamicEndpointConfig"),
    ("static_listeners", "ListenersConfigDump", "StaticListener"),
    ("dynamic_listeners", "ListenersConfigDump", "DynamicListener"),
    ("inline_scoped_route_configs", "ScopedRoutesConfigDump", "InlineScopedRouteConfigs"),
    ("dynamic_scoped_route_configs", "ScopedRoutesConfigDump", "DynamicScopedRouteConfigs"),
    ("static_route_configs", "RoutesConfigDump", "StaticRouteConfig"),
    ("dynamic_route_configs", "RoutesConfigDump", "DynamicRouteConfig"),
    ("static_secrets", "SecretsConfigDump", "StaticSecret"),
    ("dynamic_active_secrets", "SecretsConfigDump", "DynamicSecret"),
];

fn type_url(message: &str) -> Value {
    Value::String(format!("type.googleapis.com/envoy.admin.v3.{message}"))
}

/// An answer that says why there is no dump.
type Refusal = (StatusCode, String);

/// What the dump is cut down to.
struct Wanted<'a> {
    resource: Option<&'a str>,
    mask: Vec<Vec<&'a str>>,
    name: Option<Regex>,
    endpoints: bool,
}

impl<'a> Wanted<'a> {
    fn new(query: &'a Query<'_>) -> Result<Self, Refusal> {
        // Envoy (Google re2) matches the whole name.
        let whole = |text: &str| {
            Regex::new(text).and_then(|_| Regex::new(&format!("^(?:{text})$"))).map_err(|error| {
                let complaint = format!("INVALID_ARGUMENT: Error while parsing name_regex from {text}: {error}\n");
                (StatusCode::BAD_REQUEST, complaint)
            })
        };
        let resource = query.value("resource");
        let endpoints = query.has("include_eds");
        Ok(Self {
            resource,
            mask: mask::parse(query.value("mask").unwrap_or_default()),
            name: query.value("name_regex").map(whole).transpose()?,
            endpoints,
        })
    }
}

/// The answer to a request for a dump. Takes a moment: not for a thread that has others to serve.
pub(super) fn answer(origin: &Origin, query: &Query<'_>) -> Answer {
    let dump = Wanted::new(query).and_then(|wanted| {
        let failed = |error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
        let mut sections = sections(origin, wanted.endpoints).map_err(failed)?;
        if let Some(name) = &wanted.name {
            sections.iter_mut().for_each(|section| keep_named(section, name));
        }
        match wanted.resource {
            Some(resource) => elements(sections, resource, &wanted),
            None => whole(sections, &wanted.mask),
        }
    });
    match dump {
        Ok(configs) if configs.is_empty() => json_answer(&json!({})),
        Ok(configs) => json_answer(&json!({ "configs": configs })),
        Err((status, complaint)) => text(status, complaint),
    }
}

/// Keeps the elements of the section's lists whose name fits.
fn keep_named(section: &mut Section, name: &Regex) {
    for (_, list) in &mut section.fields {
        if let Value::Array(elements) = list {
            elements.retain(|element| name_of(element).is_some_and(|found| name.is_match(found)));
        }
    }
    section.fields.retain(|_, list| list.as_array().is_none_or(|elements| !elements.is_empty()));
}

/// The name of a list's element: its own, or that of what is in it.
fn name_of(element: &Value) -> Option<&str> {
    let own = element["name"].as_str();
    let within = ["cluster", "listener", "route_config"].iter().find_map(|field| element[*field]["name"].as_str());
    let endpoints = element["endpoint_config"]["cluster_name"].as_str();
    let failed = element["error_state"]["failed_configuration"]["name"].as_str();
    own.or(within).or(endpoints).or(failed)
}

/// All elements of one list, each under its own type.
fn elements(sections: Vec<Section>, resource: &str, wanted: &Wanted<'_>) -> Result<Vec<Value>, Refusal> {
    let known = LISTS
        .iter()
        .find(|(list, message, _)| *list == resource && (wanted.endpoints || *message != "EndpointsConfigDump"));
    let Some((_, message, element)) = known else {
        return Err(match resource {
            "bootstrap" => (
                StatusCode::BAD_REQUEST,
                "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field".to_owned(),
            ),
            _ => (StatusCode::NOT_FOUND, format!("{resource} not found in config dump")),
        });
    };
    let section = sections.into_iter().find(|section| section.message == *message);
    let list = section.and_then(|mut section| section.fields.remove(resource));
    let list = match list {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let tagged = |element_value: Value| {
        let cut = if wanted.mask.is_empty() { Some(element_value) } else { mask::apply(&wanted.mask, &element_value) };
        let mut object = Map::from_iter([("@type".to_owned(), type_url(&format!("{message}.{element}")))]);
        object.extend(cut.and_then(|cut| cut.as_object().cloned()).unwrap_or_default());
        Value::Object(object)
    };
    Ok(list.into_iter().map(tagged).collect())
}

/// Every section, cut down by the mask; those of which nothing is left are left out.
fn whole(sections: Vec<Section>, mask: &[Vec<&str>]) -> Result<Vec<Value>, Refusal> {
    let tagged = |section: Section| {
        let fields = Value::Object(section.fields);
        let cut = if mask.is_empty() { fields } else { mask::apply(mask, &fields)? };
        let mut object = Map::from_iter([("@type".to_owned(), type_url(section.message))]);
        object.extend(cut.as_object().cloned().unwrap_or_default());
        Some(Value::Object(object))
    };
    let configs: Vec<Value> = sections.into_iter().filter_map(tagged).collect();
    if configs.is_empty() {
        let paths: Vec<String> = mask.iter().map(|path| path.join(".")).collect();
        let complaint = format!("FieldMask {} could not be successfully applied to any configs.", paths.join(","));
        return Err((StatusCode::BAD_REQUEST, complaint));
    }
    Ok(configs)
}
