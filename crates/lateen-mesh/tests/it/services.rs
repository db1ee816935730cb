//! Services, workloads and endpoints.

use lateen_mesh::{Address, Mesh, MeshConfig, ProxyKind, Resolution, TrafficDistribution};

use crate::world::{deployment, mesh, object, service, workload};

#[test]
fn endpoints_are_at_the_target_port() {
    let text = deployment("shop", "web")
        + &service(
            "shop",
            "web",
            "[{name: named, port: 80, targetPort: web}, {name: number, port: 81, targetPort: 9090}, \
              {name: same, port: 82}, {name: nobody, port: 83, targetPort: missing}]",
        );
    let mesh = mesh(&text);
    let service = &mesh.services_of_host("web.shop.svc.cluster.local")[0];
    let ports = |number: u16| -> Vec<u16> {
        mesh.endpoints(service).port(number).iter().map(|endpoint| endpoint.port).collect()
    };
    assert_eq!((ports(80), ports(81), ports(82), ports(83)), (vec![8080], vec![9090], vec![82], vec![]));
}

#[test]
fn pods_that_are_not_ready_are_no_endpoints_unless_they_are_published() {
    let pod = |name: &str, ready: &str| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: web}}}}
spec: {{serviceAccountName: {name}, containers: [{{name: web, image: web}}]}}
status: {{phase: Running, podIP: 10.0.0.{octet}, conditions: [{{type: Ready, status: '{ready}'}}]}}
",
            octet = name.len()
        )
    };
    let text = pod("up", "True") + &pod("down", "False") + &service("shop", "web", "[{name: http, port: 80}]");
    let published = text.replace("spec: {selector", "spec: {publishNotReadyAddresses: true, selector");
    for (text, want) in [(text, 1), (published, 2)] {
        let mesh = mesh(&text);
        let service = &mesh.services_of_host("web.shop.svc.cluster.local")[0];
        assert_eq!(mesh.endpoints(service).port(80).len(), want);
        // Whom to expect does not change with who is ready.
        assert_eq!(
            *mesh.endpoints(service).principals,
            ["spiffe://cluster.local/ns/shop/sa/down", "spiffe://cluster.local/ns/shop/sa/up"]
        );
    }
}

#[test]
fn the_older_of_two_services_decides_about_a_shared_port() {
    let younger =
        service("shop", "web", "[{name: tcp, port: 82, targetPort: 8080}]").replace("name: web,", "name: again,");
    let text =
        deployment("shop", "web") + &service("shop", "web", "[{name: http, port: 80, targetPort: 8080}]") + &younger;
    let mesh = mesh(&text);
    let ports = mesh.inbound_ports(workload(&mesh, "shop", "web-0"));
    assert_eq!(ports.len(), 1);
    assert!(ports[0].protocol.is_http());
    assert_eq!((ports[0].port, ports[0].service_port), (8080, 80));
}

#[test]
fn services_also_select_workload_entries() {
    let text = service("shop", "web", "[{name: http, port: 80}]")
        + &object(
            "WorkloadEntry",
            "shop",
            "machine",
            "{address: 10.1.1.1, labels: {app: web}, serviceAccount: vm, ports: {http: 8888}, locality: eu/a/r}",
        );
    let mesh = mesh(&text);
    let service = &mesh.services_of_host("web.shop.svc.cluster.local")[0];
    let endpoint = &mesh.endpoints(service).port(80)[0];
    assert_eq!((endpoint.address.to_string().as_str(), endpoint.port), ("10.1.1.1", 8888));
    assert_eq!(endpoint.workload.locality.zone, "a");
    assert_eq!(*mesh.endpoints(service).principals, ["spiffe://cluster.local/ns/shop/sa/vm"]);
}

#[test]
fn a_dns_service_entry_without_endpoints_is_reached_under_its_own_name() {
    let text = object(
        "ServiceEntry",
        "shop",
        "outside",
        "{hosts: [api.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]}",
    );
    let mesh = mesh(&text);
    let service = &mesh.services_of_host("api.example.com")[0];
    assert!(service.external, "outside the mesh unless it says otherwise");
    assert_eq!(service.resolution, Resolution::Dns);
    let endpoint = &mesh.endpoints(service).port(80)[0];
    assert_eq!((&endpoint.address, endpoint.port), (&Address::Host("api.example.com".into()), 8080));
}

#[test]
fn service_entries_of_one_host_and_namespace_are_one_service() {
    let entry = |namespace: &str, name: &str, port: u16, address: &str| {
        object(
            "ServiceEntry",
            namespace,
            name,
            &format!(
                "{{hosts: [a.example], addresses: [{address}], resolution: STATIC, endpoints: [{{address: 10.9.9.9}}], ports: [{{number: {port}, name: tcp-{port}, protocol: TCP}}]}}"
            ),
        )
    };
    let text = entry("shop", "one", 80, "10.0.0.1")
        + &entry("shop", "two", 81, "10.0.0.2")
        + &entry("other", "three", 82, "10.0.0.3");
    let mesh = mesh(&text);
    let services = mesh.services_of_host("a.example");
    assert_eq!(services.len(), 2);
    let merged = services.iter().find(|service| &*service.namespace == "shop").expect("is there");
    assert_eq!(merged.ports.iter().map(|port| port.number).collect::<Vec<_>>(), [80, 81]);
    assert_eq!(merged.addresses.len(), 2);
}

#[test]
fn an_external_name_is_an_alias() {
    let text = "---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: web.shop.svc.cluster.local.}
";
    let mesh = mesh(text);
    let service = &mesh.services_of_host("alias.shop.svc.cluster.local")[0];
    assert_eq!(service.resolution, Resolution::Alias);
    assert_eq!(service.alias_of.as_deref(), Some("web.shop.svc.cluster.local"));
}

#[test]
fn a_gateway_is_known_by_its_template() {
    let gateway = deployment("infra", "edge").replace(
        "metadata: {labels: {app: edge}}",
        "metadata: {labels: {app: edge}, annotations: {inject.istio.io/templates: 'gateway,custom'}}",
    );
    let mesh = mesh(&(deployment("shop", "web") + &gateway));
    assert_eq!(workload(&mesh, "infra", "edge-0").proxy, ProxyKind::Gateway);
    assert_eq!(workload(&mesh, "shop", "web-0").proxy, ProxyKind::Sidecar);
}

#[test]
fn a_namespace_says_how_near_the_traffic_of_its_services_stays() {
    let namespace = |word: &str| {
        object("Namespace", "", "shop", "{}")
            .replace("networking.istio.io/v1", "v1")
            .replace("namespace: }", &format!("annotations: {{networking.istio.io/traffic-distribution: {word}}}}}"))
    };
    let service = service("shop", "web", "[{name: http, port: 80}]");
    let config = std::sync::Arc::new(MeshConfig::default());
    let near = |mesh: &Mesh| mesh.services_of_host("web.shop.svc.cluster.local")[0].traffic_distribution;
    // The Service is the same object throughout.
    let objects = crate::world::objects(&(service + &namespace("PreferClose")));
    let first = Mesh::build(&objects, &config, None);
    assert_eq!(near(&first), TrafficDistribution::SameZone);
    let other = crate::world::objects(&namespace("PreferSameNode"));
    let changed = [&objects[0], &other[0]];
    let second = Mesh::build(changed, &config, Some(&first));
    assert_eq!(near(&second), TrafficDistribution::SameNode);
    let third = Mesh::build([&objects[0]], &config, Some(&second));
    assert_eq!(near(&third), TrafficDistribution::Any);
}
