//! Deterministic encoding: the same message always gives the same bytes.
//!
//! Protobuf leaves the order of map entries open and the generated types keep maps in `HashMap`s, whose order differs
//! from one instance to the next. The push layer compares encoded resources, so an order that moves would be pushed as
//! a change. Here the entries of every map that our messages use are sorted by key after encoding.

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

/// Which fields of a message are maps, and through which fields messages with maps are reached.
struct Shape {
    maps: &'static [Child],
    messages: &'static [Child],
}

/// A field number and the shape of what it holds (for a map: of its value).
type Child = (u32, &'static Shape);

static PLAIN: Shape = Shape { maps: &[], messages: &[] };

// google.protobuf
static STRUCT: Shape = Shape { maps: &[(1, &VALUE)], messages: &[] };
static VALUE: Shape = Shape { maps: &[], messages: &[(5, &STRUCT), (6, &LIST_VALUE)] };
static LIST_VALUE: Shape = Shape { maps: &[], messages: &[(1, &VALUE)] };

// envoy.config.core.v3, envoy.config.endpoint.v3, envoy.config.cluster.v3
static METADATA: Shape = Shape { maps: &[(1, &STRUCT), (2, &PLAIN)], messages: &[] };
static LB_ENDPOINT: Shape = Shape { maps: &[], messages: &[(3, &METADATA)] };
static LOCALITY_LB_ENDPOINTS: Shape = Shape { maps: &[], messages: &[(2, &LB_ENDPOINT), (9, &METADATA)] };
static CLUSTER_LOAD_ASSIGNMENT: Shape = Shape { maps: &[(5, &PLAIN)], messages: &[(2, &LOCALITY_LB_ENDPOINTS)] };
static TRANSPORT_SOCKET_MATCH: Shape = Shape { maps: &[], messages: &[(2, &STRUCT)] };
static CLUSTER: Shape = Shape {
    maps: &[(36, &PLAIN)],
    messages: &[(25, &METADATA), (33, &CLUSTER_LOAD_ASSIGNMENT), (43, &TRANSPORT_SOCKET_MATCH)],
};

// envoy.config.route.v3
static CLUSTER_WEIGHT: Shape = Shape { maps: &[(10, &PLAIN)], messages: &[(3, &METADATA)] };
static WEIGHTED_CLUSTER: Shape = Shape { maps: &[], messages: &[(1, &CLUSTER_WEIGHT)] };
static ROUTE_ACTION: Shape = Shape { maps: &[], messages: &[(3, &WEIGHTED_CLUSTER), (4, &METADATA)] };
static ROUTE: Shape = Shape { maps: &[(13, &PLAIN)], messages: &[(2, &ROUTE_ACTION), (4, &METADATA)] };
static VIRTUAL_HOST: Shape = Shape { maps: &[(15, &PLAIN)], messages: &[(3, &ROUTE), (24, &METADATA)] };
static ROUTE_CONFIGURATION: Shape = Shape { maps: &[(16, &PLAIN)], messages: &[(2, &VIRTUAL_HOST), (17, &METADATA)] };

// envoy.config.listener.v3 and the filters
static FILTER_CHAIN: Shape = Shape { maps: &[], messages: &[(5, &METADATA)] };
static LISTENER: Shape = Shape { maps: &[], messages: &[(3, &FILTER_CHAIN), (6, &METADATA), (25, &FILTER_CHAIN)] };
static HTTP_CONNECTION_MANAGER: Shape = Shape { maps: &[], messages: &[(4, &ROUTE_CONFIGURATION)] };
static RBAC_RULES: Shape = Shape { maps: &[(2, &PLAIN)], messages: &[] };
static RBAC: Shape = Shape { maps: &[], messages: &[(1, &RBAC_RULES), (2, &RBAC_RULES)] };
static SUBSTITUTION_FORMAT: Shape = Shape { maps: &[], messages: &[(2, &STRUCT)] };
static FILE_ACCESS_LOG: Shape = Shape { maps: &[], messages: &[(3, &STRUCT), (4, &STRUCT), (5, &SUBSTITUTION_FORMAT)] };

fn shape_of(full_name: &str) -> &'static Shape {
    match full_name {
        "envoy.config.cluster.v3.Cluster" => &CLUSTER,
        "envoy.config.endpoint.v3.ClusterLoadAssignment" => &CLUSTER_LOAD_ASSIGNMENT,
        "envoy.config.listener.v3.Listener" => &LISTENER,
        "envoy.config.route.v3.RouteConfiguration" => &ROUTE_CONFIGURATION,
        "envoy.config.route.v3.VirtualHost" => &VIRTUAL_HOST,
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => &HTTP_CONNECTION_MANAGER,
        // The network filter keeps its rules in fields 1 and 2, as the HTTP filter does.
        "envoy.extensions.filters.http.rbac.v3.RBAC" | "envoy.extensions.filters.network.rbac.v3.RBAC" => &RBAC,
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => &FILE_ACCESS_LOG,
        _ => &PLAIN,
    }
}

/// Packs a message into an `Any`, its maps in key order.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: encode(message) }
}

/// Encodes a message, its maps in key order.
pub fn encode<M: Message + Name>(message: &M) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let shape = shape_of(&M::full_name());
    if shape.maps.is_empty() && shape.messages.is_empty() {
        return bytes;
    }
    let mut out = Vec::with_capacity(bytes.len());
    reorder(&bytes, shape, &mut out);
    out
}

/// Copies the fields of one encoded message, sorting map entries and descending where the shape says so.
///
/// The input is what prost has just written: fields in ascending order, the entries of a map side by side.
fn reorder(bytes: &[u8], shape: &Shape, out: &mut Vec<u8>) {
    let mut at = 0;
    let mut open_map: Option<(u32, Vec<Vec<u8>>)> = None;
    while at < bytes.len() {
        let field = Field::read(bytes, at);
        if let Some((number, _)) = &open_map
            && *number != field.number
        {
            close_map(open_map.take(), out);
        }
        if let Some((_, value)) = shape.maps.iter().find(|(number, _)| *number == field.number) {
            let entry = MapEntry { value };
            let (_, entries) = open_map.get_or_insert_with(|| (field.number, Vec::new()));
            entries.push(entry.reorder(field.payload(bytes)));
        } else if let Some((_, child)) = shape.messages.iter().find(|(number, _)| *number == field.number) {
            let mut inner = Vec::with_capacity(field.payload(bytes).len());
            reorder(field.payload(bytes), child, &mut inner);
            put_message(field.number, &inner, out);
        } else {
            out.extend_from_slice(&bytes[at..field.end]);
        }
        at = field.end;
    }
    close_map(open_map, out);
}

fn close_map(map: Option<(u32, Vec<Vec<u8>>)>, out: &mut Vec<u8>) {
    let Some((number, mut entries)) = map else { return };
    // By the keys alone: an entry starts with the length of its key, which would sort "b" before "aa".
    entries.sort_by(|a, b| key(a).cmp(key(b)));
    for entry in entries {
        put_message(number, &entry, out);
    }
}

/// The bytes of the string key (field 1) of a map entry; prost leaves an empty key out.
fn key(entry: &[u8]) -> &[u8] {
    if entry.is_empty() {
        return &[];
    }
    let field = Field::read(entry, 0);
    if field.number == 1 { field.payload(entry) } else { &[] }
}

struct MapEntry {
    value: &'static Shape,
}

impl MapEntry {
    fn reorder(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let field = Field::read(bytes, at);
            if field.number == 2 {
                let mut inner = Vec::new();
                reorder(field.payload(bytes), self.value, &mut inner);
                put_message(2, &inner, &mut out);
            } else {
                out.extend_from_slice(&bytes[at..field.end]);
            }
            at = field.end;
        }
        out
    }
}

/// One field of an encoded message: its number, where its payload starts and where the field ends.
struct Field {
    number: u32,
    payload: usize,
    end: usize,
}

impl Field {
    fn read(bytes: &[u8], at: usize) -> Self {
        let (tag, mut next) = varint(bytes, at);
        let number = (tag >> 3) as u32;
        let (payload, end) = match tag & 7 {
            0 => {
                let start = next;
                next = varint(bytes, next).1;
                (start, next)
            }
            1 => (next, next + 8),
            2 => {
                let (length, start) = varint(bytes, next);
                (start, start + length as usize)
            }
            _ => (next, next + 4),
        };
        Self { number, payload, end }
    }

    fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.payload..self.end]
    }
}

fn varint(bytes: &[u8], mut at: usize) -> (u64, usize) {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let byte = bytes[at];
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return (value, at);
        }
        shift += 7;
    }
}

/// Writes an encoded message as a field of another.
pub(crate) fn put_message(number: u32, payload: &[u8], out: &mut Vec<u8>) {
    prost::encoding::encode_varint(u64::from(number) << 3 | 2, out);
    prost::encoding::encode_varint(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use envoy_types::pb::envoy::config::core::v3::Metadata;
    use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
    use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};

    use super::*;

    fn text(text: &str) -> Value {
        Value { kind: Some(Kind::StringValue(text.to_owned())) }
    }

    fn sample() -> RouteConfiguration {
        let fields = |n: usize| -> HashMap<String, Value> {
            (0..n).map(|i| (format!("key{}", i * 37 % 101), text(&i.to_string()))).collect()
        };
        let inner = Value {
            kind: Some(Kind::ListValue(ListValue {
                values: vec![Value { kind: Some(Kind::StructValue(Struct { fields: fields(9) })) }],
            })),
        };
        let metadata = || Metadata {
            filter_metadata: (0..8)
                .map(|i| (format!("filter{i}"), Struct { fields: HashMap::from([("x".to_owned(), inner.clone())]) }))
                .collect(),
            ..Metadata::default()
        };
        let route = Route {
            name: "r".to_owned(),
            metadata: Some(metadata()),
            typed_per_filter_config: (0..6).map(|i| (format!("f{i}"), Any::default())).collect(),
            ..Route::default()
        };
        RouteConfiguration {
            name: "80".to_owned(),
            virtual_hosts: vec![VirtualHost { routes: vec![route.clone(), route], ..VirtualHost::default() }],
            ..RouteConfiguration::default()
        }
    }

    #[test]
    fn equal_messages_have_equal_bytes() {
        let first = encode(&sample());
        for _ in 0..32 {
            assert_eq!(encode(&sample()), first);
        }
    }

    #[test]
    fn nothing_is_lost_on_the_way() {
        let message = sample();
        assert_eq!(RouteConfiguration::decode(encode(&message).as_slice()).expect("decodes"), message);
    }
}
