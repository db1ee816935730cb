//! Requests that stay in their zone, and what is counted of those that do not.

use crate::running::Mesh;

const RULE: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy: {loadBalancer: {zoneAwareLbSetting: {minClusterSize: 1}}}
";

#[test]
fn requests_stay_in_their_zone_where_they_are_told_to_and_the_others_are_counted() {
    let mesh = Mesh::of("zones");
    let answers = |count: usize| -> Vec<String> {
        (0..count).map(|_| mesh.ask("deploy/client-a", "web", 5000, "/hello")).collect()
    };
    mesh.apply_text(RULE);
    let kept = answers(20);
    assert!(kept.iter().all(|answer| answer.contains("in-a")), "{kept:#?}");
    let zones = mesh.run(&["stat", "--zones"]);
    assert!(zones.contains("eu/a   eu/a   no"), "{zones}");
    assert!(!zones.contains("yes"), "nothing has crossed: {zones}");
    mesh.delete("destinationrule", "web");
    let spread = answers(40);
    assert!(spread.iter().any(|answer| answer.contains("in-b")), "{spread:#?}");
    let zones = mesh.run(&["stat", "--zones"]);
    assert!(zones.lines().any(|line| line.starts_with("eu/a   eu/b   yes")), "{zones}");
}
