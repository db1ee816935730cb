//! Sidecars that ask for virtual hosts when requests need them: the sample is the same, and each has little of it.

use crate::programs::Programs;
use crate::running::Mesh;
use crate::the_sample;

/// For the whole mesh.
const ON_DEMAND: &str = "\
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: on-demand, namespace: istio-system}
spec:
  environmentVariables: {ISTIO_META_ON_DEMAND: 'true'}
";

#[test]
fn the_sample_runs_in_a_mesh_of_sidecars_that_hold_what_they_use() {
    let mesh = Mesh::up_with(Programs::ours(), &[("on-demand.yaml", ON_DEMAND)]);
    let hosts = |proxy: &str| mesh.given(proxy, "VirtualHost");
    let clusters = |proxy: &str| mesh.given(proxy, "Cluster");
    let (before, others) = (clusters("productpage"), clusters("details"));
    assert_eq!(hosts("productpage"), 0, "nobody has asked for anything");
    the_sample(&mesh);
    // It calls details and reviews; details calls nobody.
    assert_eq!((hosts("productpage"), hosts("details")), (2, 1), "details has asked for ratings, as it was told to");
    assert!(clusters("productpage") > before && clusters("details") > others);
}
