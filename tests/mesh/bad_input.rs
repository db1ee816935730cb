//! Mistakes saved into followed files of a running mesh: each is told with its place, costs nobody else anything, leaves the
//! last good version in force, and is over when the file is mended.

use lateen_testing::eventually::eventually_blocking;

use crate::running::Mesh;

/// A mistake: what in [`GOOD`] is replaced by what, and the words it is told with, after the file's name.
struct Mistake {
    about: &'static str,
    good: &'static str,
    bad: &'static str,
    told: &'static [&'static str],
}

const GOOD: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  subsets:
  - {name: v1, labels: {version: v1}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web.example]
  gateways: [front]
  http:
  - route:
    - destination: {host: web, subset: v1}
      weight: 100
    - destination: {host: web}
      weight: 0
";

const MISTAKES: &[Mistake] = &[
    Mistake {
        about: "malformed YAML",
        good: "  hosts: [web.example]\n",
        bad: "  hosts: [web.example\n",
        told: &["rules.yaml:14:", ": error: not YAML: ", "[LAT0001]"],
    },
    Mistake {
        about: "a field that does not exist",
        good: "weight: 100",
        bad: "wieght: 100",
        told: &["rules.yaml:18:7: error: ", "wieght", "(VirtualService default/web", "did you mean `weight`?"],
    },
    Mistake {
        about: "a subset that does not exist",
        good: "{host: web, subset: v1}",
        bad: "{host: web, subset: v9}",
        told: &[
            "rules.yaml:17:",
            ": error: no DestinationRule for `web.default.svc.cluster.local` has a subset `v9`",
            "the last good version stays in force (VirtualService default/web, spec.http[0].route[0].destination.subset)",
        ],
    },
    Mistake {
        about: "a gateway that does not exist",
        good: "gateways: [front]",
        bad: "gateways: [frnt]",
        told: &[
            "rules.yaml:14:",
            ": error: gateway `frnt` does not exist; the last good version stays in force",
            "did you mean `default/front`?",
        ],
    },
    Mistake {
        about: "weights that lead nowhere",
        good: "weight: 100",
        bad: "weight: 0",
        told: &["rules.yaml:16:", ": error: the weights of all destinations are 0", "(VirtualService default/web"],
    },
    Mistake {
        about: "a weight that is no number",
        good: "weight: 100",
        bad: "weight: many",
        told: &["rules.yaml:18:", ": error: ", "(VirtualService default/web", "spec.http[0].route[0].weight"],
    },
    Mistake {
        about: "no hosts",
        good: "  hosts: [web.example]\n",
        bad: "  hosts: []\n",
        told: &[
            "rules.yaml:14:",
            ": error: a VirtualService without hosts is a delegate",
            "(VirtualService default/web",
        ],
    },
];

/// An answer that the gateway itself gives, with a text that changes.
fn notice(text: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: notice}}
spec:
  hosts: [notice.example]
  gateways: [front]
  http:
  - directResponse: {{status: 200, body: {{string: 'notice {text}'}}}}
"
    )
}

#[test]
fn mistakes_are_told_and_cost_nothing() {
    let input = ["-f", "tests/mesh/input/web.yaml", "--images", "tests/mesh/input/images.yaml"].map(str::to_owned);
    let (mesh, _) = Mesh::start(&[("rules.yaml", GOOD), ("notice.yaml", &notice(0))], &input);
    for (number, mistake) in MISTAKES.iter().enumerate() {
        // Nothing is told twice: what comes from now on is about this.
        let before = mesh.log().len();
        let bad = GOOD.replacen(mistake.good, mistake.bad, 1);
        assert_ne!(bad, GOOD, "{}", mistake.about);
        mesh.write("rules.yaml", &bad);
        let told = told(&mesh, before, "! ", mistake.told, mistake.about);
        // The rest of the configuration goes on, the last good version stays.
        mesh.write("notice.yaml", &notice(number + 1));
        eventually_blocking("another file takes effect", || {
            mesh.get_host("notice.example", "/").ends_with(&format!("notice {}", number + 1)).then_some(())
        });
        the_good_version_is_in_force(&mesh, mistake.about);
        // Who was not there can ask; and once it is mended, nothing is left of it.
        let first_line = told.lines().next().unwrap_or_default().trim_start_matches("! ").to_owned();
        let status = mesh.run(&["status"]);
        assert!(status.contains(&first_line), "{status}");
        mesh.write("rules.yaml", GOOD);
        self::told(&mesh, before, "solved: ", &[&first_line], mistake.about);
        assert!(!mesh.run(&["status"]).contains("error"), "{}", mistake.about);
        the_good_version_is_in_force(&mesh, mistake.about);
    }
    // Nobody has died of it.
    assert!(!mesh.log().contains("the control plane ended"), "{}", mesh.log());
    assert_eq!(mesh.run(&["proxy-status"]).matches("synced").count(), 4);
}

/// Of two rules for a host in the mesh, the older one stays in force (Istio's rule for sidecars).
#[test]
fn a_second_rule_for_a_host_is_told_and_changes_nothing() {
    let mesh = Mesh::of("web");
    let answer = |name: &str, text: &str| {
        format!(
            "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [web]
  http:
  - directResponse: {{status: 200, body: {{string: '{text}'}}}}
"
        )
    };
    let (first, second) = (answer("first", "by the first"), answer("second", "by the second"));
    let ask = || mesh.ask("deploy/client", "web", 5000, "/");
    mesh.write("rules.yaml", &first);
    eventually_blocking("the first is in force", || ask().ends_with("by the first").then_some(()));
    let before = mesh.log().len();
    mesh.write("rules.yaml", &(first.clone() + &second));
    told(
        &mesh,
        before,
        "! ",
        &["rules.yaml:", ": error: ", "this one is ignored", "(VirtualService default/second"],
        "two rules",
    );
    assert!(ask().ends_with("by the first"));
    mesh.write("rules.yaml", &second);
    eventually_blocking("the second is in force", || ask().ends_with("by the second").then_some(()));
    told(&mesh, before, "solved: ", &["this one is ignored"], "two rules");
}

/// Waits until a line that begins so and contains all of this is in what `lateen up` has said since; gives it and the rest.
#[track_caller]
fn told(mesh: &Mesh, since: usize, start: &str, parts: &[&str], about: &str) -> String {
    let find = || {
        let log = mesh.log();
        let new = log.get(since..)?;
        let at = new.match_indices(start).map(|(at, _)| at);
        let mut found = at.filter(|at| {
            // Below are the line itself, what underlines it, and a help.
            let lines: Vec<&str> = new[*at..].lines().take(4).collect();
            parts.iter().all(|part| lines.join("\n").contains(part))
        });
        found.next().map(|at| new[at..].to_owned())
    };
    eventually_blocking(&format!("{about} is told as {start:?} {parts:?}, in {}", mesh.state().display()), find)
}

#[track_caller]
fn the_good_version_is_in_force(mesh: &Mesh, about: &str) {
    for _ in 0..10 {
        let answer = mesh.get_host("web.example", "/hello");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("version: v1"), "{about}: {answer}");
    }
}
