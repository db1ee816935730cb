//! Questions about small meshes, as files have them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gateways;
mod policies;
mod routes;
mod wrong;

use http::{HeaderName, HeaderValue, Method};
use lateen_explain::journey::{Leg, Stage};
use lateen_explain::question::SOMEBODY;
use lateen_explain::{From, Journey, Misunderstood, Objects, Question, Url, World, explain};
use lateen_mesh::MeshConfig;

/// Two versions of `web` and one `client`, in namespace `default`; `client` has a sidecar, `naked` has none.
const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: tcp-admin, port: 9000}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v1}
spec:
  replicas: 2
  selector: {matchLabels: {app: web, version: v1}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec: {serviceAccountName: web, containers: [{name: c, image: i}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v2}
spec:
  selector: {matchLabels: {app: web, version: v2}}
  template:
    metadata: {labels: {app: web, version: v2}}
    spec: {serviceAccountName: web, containers: [{name: c, image: i}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec: {serviceAccountName: client, containers: [{name: c, image: i}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: naked}
spec:
  selector: {matchLabels: {app: naked}}
  template:
    metadata: {labels: {app: naked, sidecar.istio.io/inject: 'false'}}
    spec: {containers: [{name: c, image: i}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
";

/// The shop with these rules, which are in the file `rules.yaml`.
fn shop(rules: &str) -> World {
    let parsed = [("shop.yaml", SHOP), ("rules.yaml", rules)]
        .map(|(name, text)| lateen_api::parse_documents(name, text, "default"));
    for found in parsed.iter().flat_map(|parsed| &parsed.diagnostics) {
        assert!(!found.is_error(), "{found}");
    }
    let objects = parsed.into_iter().flat_map(|parsed| parsed.objects).collect();
    World::new(objects, Objects::Written, MeshConfig::default())
}

fn question(from: &str, to: &str, headers: &[(&'static str, &'static str)]) -> Question {
    let headers = headers.iter();
    Question {
        from: From::Workload { name: from.to_owned(), namespace: "default".to_owned() },
        url: Url::parse(to).unwrap(),
        via: None,
        method: Method::GET,
        headers: headers
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect(),
        claims: None,
        now: 1_700_000_000,
    }
}

fn ask(world: &World, from: &str, to: &str) -> Journey {
    explain(world, &question(from, to, &[])).unwrap()
}

fn ask_gateway(world: &World, to: &str) -> Result<Journey, Misunderstood> {
    let via = Some("gateway".to_owned());
    explain(world, &Question { from: From::Outside(SOMEBODY), via, ..question("", to, &[]) })
}

/// What the caller gets, each with its share in percent.
fn results(journey: &Journey) -> Vec<String> {
    let what = |ending: &lateen_explain::journey::Ending| {
        let answer = match (&ending.served_by, ending.status) {
            (Some(who), _) => who.clone(),
            (None, Some(status)) => format!("{status} {}", ending.why),
            (None, None) => ending.why.clone(),
        };
        format!("{:.0} {answer}", ending.share * 100.0)
    };
    journey.results.iter().map(what).collect()
}

/// What is said of one thing, in all legs.
fn said(journey: &Journey, stage: Stage) -> Vec<String> {
    let of_leg = |leg: &Leg| {
        let branches = match &leg.outcome {
            lateen_explain::journey::Outcome::Sent { branches } => branches.as_slice(),
            _ => &[],
        };
        let all = leg.steps.iter().chain(branches.iter().flat_map(|branch| &branch.steps));
        all.filter(|step| step.stage == stage)
            .map(|step| {
                let places: Vec<String> =
                    step.places.iter().map(|place| format!("{}:{}", place.file, place.line)).collect();
                format!("{} @{}", step.said, places.join(","))
            })
            .collect::<Vec<_>>()
    };
    journey.first.all().into_iter().flat_map(of_leg).collect()
}
