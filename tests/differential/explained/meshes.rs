//! Meshes made at random, and requests to them: the same for the same seed. Everything that a rule can ask of a request is
//! drawn from few values, so that rules and requests meet often.

use std::fmt::Write as _;

/// SplitMix64 (Steele, Lea, Flood).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("it is below a usize")
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// True in so many of a hundred cases.
    fn holds(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A request, by what a client writes.
#[derive(Debug)]
pub(super) struct Asked {
    /// Number of the service.
    pub(super) service: usize,
    pub(super) method: &'static str,
    pub(super) target: &'static str,
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

const TARGETS: [&str; 10] = ["/", "/a", "/a/b", "/ab", "/A/B", "/x/1", "/x/22", "/b?q=1", "/a?q=2&r=3", "/a/b?r="];
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const HEADERS: [&str; 2] = ["x-a", "x-b"];
const VALUES: [&str; 4] = ["1", "12", "two", "Two"];

pub(super) fn request(dice: &mut Dice, services: usize) -> Asked {
    let mut headers = Vec::new();
    for name in HEADERS {
        if dice.holds(60) {
            headers.push((name, dice.one(&VALUES)));
        }
    }
    Asked { service: dice.below(services), method: dice.one(&METHODS), target: dice.one(&TARGETS), headers }
}

/// Pods `v1-…` and `v2-…` without proxies, at loopback addresses, behind services `s0`, `s1`, … with a VirtualService each,
/// which `client` calls.
pub(super) fn of_routes(dice: &mut Dice, services: usize, port: u16) -> String {
    let mut text = pod("client", "127.0.0.1", &[("app", "client")], true);
    for host in 1..=4_usize {
        let version = if host <= 2 { "v1" } else { "v2" };
        let labels = [("app", "web"), ("version", version)];
        text += &pod(&format!("{version}-{host}"), &format!("127.0.0.{host}"), &labels, false);
    }
    for number in 0..services {
        text += &service(&format!("s{number}"), "web", number, port);
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: s{number}}}\nspec:\n  \
             host: s{number}\n  subsets:\n  - {{name: v1, labels: {{version: v1}}}}\n  \
             - {{name: v2, labels: {{version: v2}}}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: s{number}}}\nspec:\n  hosts: [s{number}]\n  http:\n"
        );
        for _ in 0..=dice.below(3) {
            text += &rule(dice, number, true);
        }
        if dice.holds(70) {
            text += &rule(dice, number, false);
        }
    }
    text
}

fn pod(name: &str, address: &str, labels: &[(&str, &str)], proxy: bool) -> String {
    let mut labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    if proxy {
        labels.push("security.istio.io/tlsMode: istio".to_owned());
    }
    let status = if proxy { ", annotations: {sidecar.istio.io/status: '{}'}" } else { "" };
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{{}}}{status}}}\n\
         spec: {{serviceAccountName: {name}, containers: [{{name: c, image: i}}]}}\n\
         status: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: 'True'}}]}}\n",
        labels.join(", ")
    )
}

fn service(name: &str, app: &str, number: usize, port: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  clusterIP: 10.96.0.{}\n  \
         selector: {{app: {app}}}\n  ports: [{{name: http, port: 80, targetPort: {port}}}]\n",
        number + 1
    )
}

/// An element of `spec.http`.
fn rule(dice: &mut Dice, number: usize, conditional: bool) -> String {
    let mut parts: Vec<String> = Vec::new();
    if conditional {
        let matches: Vec<String> = (0..=dice.below(2)).map(|_| conditions(dice)).collect();
        parts.push(format!("match: [{}]", matches.join(", ")));
    }
    match dice.below(10) {
        0 | 1 => parts.push(format!(
            "redirect: {{uri: /moved, redirectCode: {}, authority: {}}}",
            dice.one(&["301", "302", "307", "308"]),
            dice.one(&["there", "there:81"])
        )),
        2 => parts
            .push(format!("directResponse: {{status: {}, body: {{string: hello}}}}", dice.one(&["200", "404", "503"]))),
        kind => {
            parts.push(format!("route: [{}]", destinations(dice, number, kind > 6)));
            if dice.holds(25) {
                parts.push(format!(
                    "rewrite: {{{}}}",
                    dice.one(&["uri: /new", "uri: /n/", "authority: other", "uri: /, authority: b:8"])
                ));
            }
            if dice.holds(30) {
                parts.push(format!("headers: {{request: {}}}", mutations(dice)));
            }
            if dice.holds(15) {
                let share = dice.one(&["100", "50", "0"]);
                parts.push(format!("fault: {{abort: {{percentage: {{value: {share}}}, httpStatus: 418}}}}"));
            }
        }
    }
    format!("  - {{{}}}\n", parts.join(", "))
}

fn conditions(dice: &mut Dice) -> String {
    let mut parts = Vec::new();
    if dice.holds(70) {
        let uri = dice.one(&[
            "{exact: /a}",
            "{prefix: /a}",
            "{prefix: /a/}",
            "{prefix: /x}",
            "{regex: '/x/[0-9]'}",
            "{regex: '/(a|b).*'}",
            "{exact: /b}",
        ]);
        parts.push(format!("uri: {uri}"));
        if dice.holds(25) {
            parts.push("ignoreUriCase: true".to_owned());
        }
    }
    let text = |dice: &mut Dice| dice.one(&["{exact: '1'}", "{prefix: '1'}", "{regex: '[tT]wo'}", "{exact: two}"]);
    if dice.holds(40) {
        let condition = if dice.holds(20) { "{}" } else { text(dice) };
        parts.push(format!("headers: {{{}: {condition}}}", dice.one(&HEADERS)));
    }
    if dice.holds(15) {
        parts.push(format!("withoutHeaders: {{{}: {}}}", dice.one(&HEADERS), text(dice)));
    }
    if dice.holds(20) {
        parts.push(format!("method: {{exact: {}}}", dice.one(&METHODS)));
    }
    if dice.holds(20) {
        parts.push(format!("queryParams: {{{}: {{exact: '{}'}}}}", dice.one(&["q", "r"]), dice.one(&["1", "2", "3"])));
    }
    if parts.is_empty() {
        parts.push("uri: {prefix: /}".to_owned());
    }
    format!("{{{}}}", parts.join(", "))
}

fn destinations(dice: &mut Dice, number: usize, several: bool) -> String {
    let one = |dice: &mut Dice| {
        let subset = dice.one(&["", ", subset: v1", ", subset: v2", ", subset: v1", ", subset: v2", ", subset: none"]);
        format!("destination: {{host: s{number}{subset}}}")
    };
    if !several {
        return format!("{{{}}}", one(dice));
    }
    let weight = 10 * (1 + dice.below(9));
    let part = |dice: &mut Dice, weight: usize| {
        let headers =
            if dice.holds(40) { format!(", headers: {{request: {}}}", mutations(dice)) } else { String::new() };
        format!("{{{}, weight: {weight}{headers}}}", one(dice))
    };
    format!("{}, {}", part(dice, weight), part(dice, 100 - weight))
}

fn mutations(dice: &mut Dice) -> &'static str {
    dice.one(&[
        "{set: {x-a: new}}",
        "{add: {x-a: more}}",
        "{remove: [x-a]}",
        "{set: {x-c: c}, remove: [x-b]}",
        "{add: {x-c: '1'}, set: {x-b: '2'}}",
    ])
}

/// Pods `p0`, `p1`, … with sidecars and policies, each behind a service of its own, which `naked` calls.
pub(super) fn of_policies(dice: &mut Dice, services: usize, port: u16) -> String {
    let mut text = pod("naked", "127.0.0.1", &[("app", "naked")], false);
    for number in 0..services {
        let app = format!("p{number}");
        text += &pod(&app, &format!("127.0.9.{}", number + 1), &[("app", &app)], true);
        text += &service(&format!("s{number}"), &app, number, port);
        for policy in 0..=dice.below(3) {
            let action = dice.one(&["ALLOW", "ALLOW", "DENY"]);
            let rules: Vec<String> = (0..=dice.below(2)).map(|_| access_rule(dice)).collect();
            let _ = write!(
                text,
                "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {app}-{policy}}}\nspec:\n  \
                 selector: {{matchLabels: {{app: {app}}}}}\n  action: {action}\n  rules: [{}]\n",
                rules.join(", ")
            );
        }
    }
    text
}

fn access_rule(dice: &mut Dice) -> String {
    let mut operation = Vec::new();
    if dice.holds(50) {
        let methods = dice.one(&["methods: [GET]", "methods: [POST, DELETE]", "notMethods: [GET]"]);
        operation.push(methods.to_owned());
    }
    if dice.holds(60) {
        let paths = dice.one(&["paths: [/a]", "paths: [/a*]", "paths: ['*/b']", "notPaths: [/x*]", "paths: [/x/1, /]"]);
        operation.push(paths.to_owned());
    }
    if dice.holds(20) {
        operation.push(dice.one(&["hosts: ['s*']", "hosts: [S1]", "notHosts: [s2]"]).to_owned());
    }
    let mut parts = Vec::new();
    if !operation.is_empty() {
        parts.push(format!("to: [{{operation: {{{}}}}}]", operation.join(", ")));
    }
    if dice.holds(15) {
        parts.push("from: [{source: {namespaces: [default]}}]".to_owned());
    }
    if dice.holds(40) {
        let values = dice.one(&["values: ['1']", "values: ['1*']", "notValues: [two]", "values: ['*']"]);
        parts.push(format!("when: [{{key: 'request.headers[{}]', {values}}}]", dice.one(&HEADERS)));
    }
    format!("{{{}}}", parts.join(", "))
}
