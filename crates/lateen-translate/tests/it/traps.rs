//! Semantics of Istio that are easy to get wrong, and surprises that users reported, one test for each. `tests/traps.yaml`
//! holds, by the numbers in the tests' names, objects beside a small world, and what must be seen of them:
//!
//! - `see: <type> <resource> <path>`: what is there; a path names members of lists by their `name`, by their place, or all of
//!   them (`*`), and `name#1` is the second of a name.
//! - `find: <type> <resource> <key>`: the first value of this key anywhere in it.
//! - `keys: <type> <resource> <path>`: the keys of what is there, sorted.
//! - `names: <type> <pattern>`: the names of the resources that fit.
//!
//! `mesh` is what the mesh config says.
//!
//! A row that is proved elsewhere names the file and the test, or several.
//!
//! What users reported, and what of it is here:
//!
//! | thread | held by |
//! | --- | --- |
//! | istio#55138, #13848; #8420; #30080; #20703, #29846, #35429; #42862; #48055; #7926, #33613; #13851; #39477; #45128; #48290; #61126; #35066; #38440, #33564; linkerd2#13475, #6449; linkerd2#4808 | rows below |
//! | istio#51855, #36631, #47718, #11045; linkerd2#7425: native sidecars, preStop, Jobs | the order of a pod's containers on one machine (lateen-cli's `pods`); not on a cluster |
//! | istio#26380; kuma#18258; kiali#8230 | webhooks, the Gateway API and large graphs are not there yet |

use std::collections::BTreeSet;

use lateen_mesh::MeshConfig;
use lateen_translate::type_url;
use serde_json::{Map, Value, json};

use crate::golden::fits;
use crate::world::{TYPES, World, here};

const TRAPS: &str = include_str!("../traps.yaml");

fn document() -> Value {
    let document = lateen_api::yaml::documents(TRAPS).into_iter().next().expect("the file has a document");
    document.unwrap_or_else(|error| panic!("traps.yaml: {error:?}")).to_json()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value[key].as_str()
}

/// An object of a case: the group of traffic kinds, namespace and name go without saying.
fn object(value: &Value) -> String {
    let mut object = json!({
        "apiVersion": text(value, "api").unwrap_or("networking.istio.io/v1"),
        "kind": value["kind"],
        "metadata": {
            "name": text(value, "name").unwrap_or("tried"),
            "namespace": text(value, "namespace").unwrap_or("default"),
        },
    });
    let fields = object.as_object_mut().expect("it is one");
    fields.extend(value.get("spec").map(|spec| ("spec".to_owned(), spec.clone())));
    fields.extend(value["top"].as_object().cloned().unwrap_or_else(Map::new));
    object.to_string()
}

/// Looks at what a row says, and at nothing that it does not say.
fn check(name: &str) {
    let document = document();
    let row = &document[name];
    if let Some(elsewhere) = row.as_str() {
        return is_there(elsewhere);
    }
    assert!(!list(row).is_empty(), "traps.yaml has no row {name}");
    let world: Vec<String> = list(&document["world"]).iter().map(ToString::to_string).collect();
    for (place, case) in list(row).iter().enumerate() {
        if let Some(elsewhere) = case.as_str() {
            is_there(elsewhere);
            continue;
        }
        let objects: Vec<String> = list(&case["objects"]).iter().map(object).collect();
        let config = mesh_config(&case["mesh"]);
        let world =
            World::new(&[("world.yaml", &world.join("\n---\n")), ("case.yaml", &objects.join("\n---\n"))], config);
        let proxy = text(case, "as").or_else(|| text(&document, "proxy")).expect("a proxy is named");
        let seen = seen(&world, proxy, case);
        assert_eq!(seen, case["is"], "row {name}, case {place}, {case:#}");
    }
}

/// What a case says of the mesh config; Istio's defaults where it says nothing.
fn mesh_config(written: &Value) -> MeshConfig {
    if written.is_null() {
        return MeshConfig { access_log_file: None, ..MeshConfig::default() };
    }
    let (config, found) = lateen_api::mesh_config::parse("mesh.yaml", &written.to_string());
    assert!(found.is_empty(), "{found:?}");
    MeshConfig::of(config)
}

/// What is proved elsewhere: a file, and a test in it that is run.
fn is_there(elsewhere: &str) {
    let (file, test) = elsewhere.split_once(' ').expect("a file and a test");
    let source =
        std::fs::read_to_string(here().join("../..").join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert!(source.contains(test), "{file} has no test {test}");
    assert!(!source.contains(&format!("#[ignore]\n{test}")), "{file}: {test} is left out");
}

fn seen(world: &World, proxy: &str, case: &Value) -> Value {
    let words = ["names", "keys", "find", "see"].iter().find_map(|what| Some((*what, text(case, what)?)));
    let (what, words) = words.expect("a case says what to look at");
    let mut words = words.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (short, resource, path) = (word(), word(), word());
    let url = TYPES.iter().copied().chain([("secret", type_url::SECRET)]).find(|(known, _)| *known == short);
    let url = url.unwrap_or_else(|| panic!("{short} is no type of resource")).1;
    let all = world.resources(proxy, url);
    if what == "names" {
        return all.iter().map(|named| &*named.name).filter(|name| fits(resource, name)).collect();
    }
    let Some(named) = all.iter().find(|named| *named.name == *resource) else { return Value::Null };
    let value = crate::world::json(named);
    match what {
        "find" => find(&value, path).cloned().unwrap_or_default(),
        "keys" => {
            let at = look(&value, path);
            let mut keys: Vec<&String> = at.as_object().into_iter().flat_map(Map::keys).collect();
            keys.sort();
            json!(keys)
        }
        _ => look(&value, path),
    }
}

/// What is at a path; null for nothing.
fn look(at: &Value, path: &str) -> Value {
    let (step, rest) = path.split_once('/').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let further = |found: &Value| rest.map_or_else(|| found.clone(), |rest| look(found, rest));
    if step == "*" {
        return list(at).iter().map(further).collect();
    }
    let found = match at {
        Value::Array(items) => {
            let (name, place) =
                step.rsplit_once('#').map_or((step, 0), |(name, place)| (name, place.parse().expect("a place")));
            let named = items.iter().filter(|item| item["name"] == name).nth(place);
            named.or_else(|| items.get(step.parse::<usize>().ok()?))
        }
        other => other.get(step),
    };
    found.map_or(Value::Null, further)
}

/// The first value of a key, in the order of the text.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields.get(key).or_else(|| fields.values().find_map(|value| find(value, key))),
        Value::Array(items) => items.iter().find_map(|item| find(item, key)),
        _ => None,
    }
}

/// A test for each row, and a test that no row is without one.
macro_rules! rows {
    ($($name:ident: $row:literal,)*) => {
        $(#[test]
        fn $name() {
            check($row);
        })*

        #[test]
        fn every_row_has_a_test() {
            let document = document();
            let rows = document.as_object().into_iter().flat_map(Map::keys);
            let rows: BTreeSet<&str> = rows.map(String::as_str).filter(|row| !["proxy", "world"].contains(row)).collect();
            assert_eq!(rows, BTreeSet::from([$($row),*]));
        }
    };
}

rows! {
    row_01_a_503_of_the_application_is_final_by_default: "1",
    row_02_servers_retry_what_was_not_begun_except_grpc: "2",
    row_03_gateways_of_an_http_match_replace_the_source_and_of_a_tls_match_do_not: "3",
    row_04_a_prefix_is_a_prefix_of_the_text: "4",
    row_05_a_star_as_regex_asks_for_presence: "5",
    row_06_rules_for_one_host_merge_at_gateways_and_the_oldest_wins_in_the_mesh: "6",
    row_07_a_route_for_all_goes_last_at_gateways: "7",
    row_08_port_settings_reset_what_they_leave_out: "8",
    row_09_the_first_namespace_with_any_rule_ends_the_search: "9",
    row_10_a_private_rule_of_the_caller_hides_the_owners: "10",
    row_11_failover_comes_with_outlier_detection_and_not_without: "11",
    row_12_panic_is_off_beside_outlier_detection_and_envoys_without: "12",
    row_13_a_routes_hash_is_the_nearest_and_there_without_a_rule_for_routes: "13",
    row_14_a_hash_lets_retries_go_to_the_same_host: "14",
    row_15_no_timeout_is_none: "15",
    row_16_no_breaker_is_none: "16",
    row_17_the_clients_protocol_beats_the_upgrade: "17",
    row_18_a_servers_limits_are_those_of_its_first_service_unless_its_sidecar_says_more: "18",
    row_19_the_older_service_decides_about_a_shared_port: "19",
    row_20_headless_tcp_has_a_listener_for_each_pod_and_http_one_by_original_destination: "20",
    row_21_an_external_name_is_an_alias_and_policy_is_its_targets: "21",
    row_22_a_service_entry_is_outside_unless_it_says_inside: "22",
    row_23_automatic_mtls_is_for_each_endpoint_and_a_rules_tls_for_all: "23",
    row_24_ports_of_mtls_are_the_workloads: "24",
    row_25_permissive_ports_leave_the_applications_own_tls_alone: "25",
    row_26_ports_without_a_service_are_caught_and_authorised: "26",
    row_27_what_is_sent_to_the_proxys_own_ports_is_dropped: "27",
    row_28_denials_without_requests_widen_and_permissions_narrow: "28",
    row_29_an_authorizer_is_asked_before_tokens_are_read: "29",
    row_30_what_others_decide_cannot_be_tried: "30",
    row_31_paths_are_compared_as_the_mode_leaves_them: "31",
    row_32_hosts_of_policies_ignore_case_and_not_ports: "32",
    row_33_names_of_namespaces_and_accounts_are_compared_literally: "33",
    row_34_any_request_principal_is_one_with_both_parts: "34",
    row_35_no_rules_allow_nothing_and_no_policy_allows_all: "35",
    row_36_one_of_several_tokens_is_enough_where_the_others_are_absent: "36",
    row_37_the_local_trust_domain_stands_for_its_aliases: "37",
    row_38_ports_of_gateways_are_the_services: "38",
    row_39_the_second_tls_server_for_a_host_is_dropped_across_namespaces: "39",
    row_40_one_certificate_for_several_gateways_is_told: "40",
    row_41_a_secret_is_for_the_gateway_that_names_it: "41",
    row_42_egress_to_the_own_namespace_hides_the_root_namespace: "42",
    row_43_rules_meet_imported_hosts_both_ways_and_services_one_way: "43",
    row_44_hosts_may_be_invented_on_port_80_alone: "44",
    row_45_a_sniffed_port_has_a_table_for_any_host: "45",
    row_46_a_lone_weight_of_zero_gets_all_and_one_among_several_nothing: "46",
    row_47_fault_and_cors_stand_beside_each_other: "47",
    row_48_subnets_of_a_match_are_its_own: "48",
    row_49_passthrough_drops_listed_endpoints: "49",
    row_50_names_without_endpoints_make_no_cluster: "50",
    row_51_a_known_name_without_an_address_of_a_family_is_no_error: "51",
    row_52_both_sides_count_with_every_label: "52",
    row_53_the_provider_envoy_has_the_formats_of_the_mesh_config_unless_it_has_its_own: "53",
    row_54_more_than_all_is_refused: "54",
    row_55_one_annotation_about_resources_replaces_all_defaults: "55",
    row_56_the_label_of_the_namespace_beats_the_revisions: "56",
    row_57_names_in_a_certificate_request_are_not_granted: "57",
    row_58_the_root_comes_last: "58",
    row_59_a_subset_stays_while_routes_lead_to_it: "59",
    row_60_discovery_selectors_are_told_of: "60",
    a_sidecars_egress_listeners_have_what_they_import: "egress listeners",
    the_mesh_config_speaks_where_no_object_does: "mesh config",
    proxies_show_and_trust_as_their_settings_say: "proxy settings",
    a_gateway_passes_connections_on_to_what_is_exported: "services behind a passing gateway",
    istio_7926_a_websocket_outlives_changes_of_rules_and_listeners: "istio#7926",
    istio_8420_rules_are_deleted_and_made_again_in_any_order: "istio#8420",
    istio_13851_a_post_that_was_read_is_not_sent_again: "istio#13851",
    istio_20703_an_external_name_on_port_443_is_nobody_elses: "istio#20703",
    istio_30080_a_rule_that_takes_subsets_away_is_told: "istio#30080",
    istio_35066_series_of_many_hosts_are_bounded_and_forgotten: "istio#35066",
    istio_39477_outlier_detection_that_keeps_traffic_in_its_place_is_told: "istio#39477",
    istio_38440_a_source_that_cannot_be_reached_takes_nothing_from_the_others: "istio#38440",
    istio_42862_a_fault_for_a_host_outside_stays_where_it_is_exported_to: "istio#42862",
    istio_45128_ejected_and_healthy_hosts_add_up: "istio#45128",
    istio_48055_a_copy_of_a_host_stays_in_its_namespace: "istio#48055",
    istio_48290_from_plaintext_to_mutual_tls_nothing_is_lost: "istio#48290",
    istio_55138_no_request_is_lost_or_doubled_that_crosses_an_idle_close: "istio#55138",
    istio_61126_what_cannot_be_enforced_as_written_is_told_and_closed: "istio#61126",
    linkerd2_4808_one_root_takes_over_from_another: "linkerd2#4808",
    linkerd2_13475_a_server_that_speaks_first_is_not_waited_for: "linkerd2#13475",
}
