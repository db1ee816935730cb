//! Files, and what is applied over them.

use serde_json::{Value, json};

use crate::world::{SHOP, World};

fn rule(weight: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web}}\nspec:\n  hosts: [web]\n  http:\n  - timeout: {weight}\n    route:\n    - destination: {{host: web}}\n"
    )
}

const RULES: &str = "/api/v1/objects?kind=VirtualService";
const PROBLEMS: &str = "/api/v1/diagnostics";

fn timeout(answer: &Value) -> &str {
    answer["items"][0]["spec"]["http"][0]["timeout"].as_str().unwrap_or("none")
}

fn problems(answer: &Value) -> &[Value] {
    answer["diagnostics"].as_array().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_a_new_revision() {
    let world = World::new(&[("shop.yaml", SHOP), ("rule.yaml", &rule("1s"))]).await;
    let before = world.get(RULES).await;
    assert_eq!(timeout(&before), "1s");
    world.save("rule.yaml", &rule("2s"));
    let after = world.eventually(RULES, |answer| timeout(answer) == "2s").await;
    assert!(after["revision"].as_u64() > before["revision"].as_u64());
    let origin = after["items"][0]["metadata"]["annotations"]["lateen.dev/origin"].as_str().unwrap();
    assert!(origin.ends_with("input/rule.yaml:1"), "{origin}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_goes_takes_its_objects_along_and_a_new_one_brings_its_own() {
    let world = World::new(&[("shop.yaml", SHOP), ("rule.yaml", &rule("1s"))]).await;
    std::fs::remove_file(world.folder.path().join("input/rule.yaml")).unwrap();
    world.eventually(RULES, |answer| answer["items"].as_array().unwrap().is_empty()).await;
    world.save("another.yml", &rule("3s"));
    world.eventually(RULES, |answer| timeout(answer) == "3s").await;
    assert_eq!(world.names("Service").await, ["cart", "web"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_edit_keeps_the_last_good_version_and_the_rest_goes_on() {
    let world = World::new(&[("rule.yaml", &(rule("1s") + "---\n" + SHOP))]).await;
    // A field misspelt, a new object beside it.
    let broken = rule("2s").replace("route:", "rout:");
    let account = "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: fresh}\n";
    world.save("rule.yaml", &(broken + "---\n" + SHOP + account));
    let found = world.eventually(PROBLEMS, |answer| !problems(answer).is_empty()).await;
    let problem = &problems(&found)[0];
    assert_eq!((&problem["line"], &problem["object"]["name"]), (&json!(8), &json!("web")), "{problem:#}");
    assert_eq!(timeout(&world.get(RULES).await), "1s");
    assert_eq!(world.names("ServiceAccount").await, ["fresh"]);
    // Not even YAML: everything stays.
    world.save("rule.yaml", "kind: [\n");
    world.eventually(PROBLEMS, |answer| problems(answer).iter().any(|it| it["code"] == "LAT0001")).await;
    assert_eq!(timeout(&world.get(RULES).await), "1s");
    assert_eq!(world.names("Service").await, ["cart", "web"]);
    // Good again, without the rule.
    world.save("rule.yaml", SHOP);
    world.eventually(RULES, |answer| answer["items"].as_array().unwrap().is_empty()).await;
    assert!(problems(&world.get(PROBLEMS).await).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_objects_of_one_name_the_first_stays() {
    let world = World::new(&[("shop.yaml", SHOP), ("a.yaml", &rule("1s")), ("b.yaml", &rule("2s"))]).await;
    assert_eq!(timeout(&world.get(RULES).await), "1s");
    let found = world.get(PROBLEMS).await;
    let problem = problems(&found).iter().find(|it| it["code"] == "LAT0007").expect("the second is reported");
    assert!(problem["file"].as_str().unwrap().ends_with("b.yaml"));
    assert!(problem["message"].as_str().unwrap().contains("a.yaml:1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_write_wins_between_file_and_call() {
    let world = World::new(&[("shop.yaml", SHOP), ("rule.yaml", &rule("1s"))]).await;
    let (status, answer) = world.post("/api/v1/apply", &rule("5s")).await;
    assert_eq!((status.as_u16(), &answer["results"][0]["action"]), (200, &json!("configured")), "{answer:#}");
    assert_eq!(timeout(&world.get(RULES).await), "5s");
    let (_, again) = world.post("/api/v1/apply", &rule("5s")).await;
    assert_eq!(again["results"][0]["action"], "unchanged");
    assert_eq!(again["revision"], answer["revision"]);
    // An edit elsewhere in the file changes nothing about it, nor does a new start.
    world.save("rule.yaml", &("# a remark\n".to_owned() + &rule("1s")));
    let world = world.restart().await;
    assert_eq!(timeout(&world.get(RULES).await), "5s");
    world.save("rule.yaml", &rule("7s"));
    world.eventually(RULES, |answer| timeout(answer) == "7s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_object_stays_deleted_until_its_text_changes() {
    let world = World::new(&[("shop.yaml", SHOP), ("rule.yaml", &rule("1s"))]).await;
    let body = json!({"objects": [{"kind": "VirtualService", "namespace": "default", "name": "web"}]}).to_string();
    let (_, answer) = world.post("/api/v1/delete", &body).await;
    assert_eq!(answer["results"][0]["action"], "deleted");
    let (_, again) = world.post("/api/v1/delete", &body).await;
    assert_eq!(again["results"][0]["action"], "not found");
    let world = world.restart().await;
    assert_eq!(world.names("VirtualService").await, Vec::<String>::new());
    world.save("rule.yaml", &rule("2s"));
    world.eventually(RULES, |answer| timeout(answer) == "2s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_only_applied_lives_until_it_is_deleted() {
    let world = World::new(&[("shop.yaml", SHOP)]).await;
    let (_, answer) = world.post("/api/v1/apply?file=mine.yaml", &rule("1s")).await;
    assert_eq!(answer["results"][0]["action"], "created");
    let world = world.restart().await;
    let rules = world.get(RULES).await;
    assert_eq!(rules["items"][0]["metadata"]["annotations"]["lateen.dev/origin"], "mine.yaml:1");
    let body = json!({"objects": [{"kind": "vs", "namespace": "default", "name": "web"}]}).to_string();
    world.post("/api/v1/delete", &body).await;
    assert_eq!(world.names("VirtualService").await, Vec::<String>::new());
    assert_eq!(std::fs::read_dir(world.folder.path().join("applied")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_services_survive_a_restart() {
    let world = World::new(&[("shop.yaml", SHOP)]).await;
    let addresses = |answer: &Value| -> Vec<String> {
        let items = answer["items"].as_array().unwrap();
        items.iter().map(|item| item["spec"]["clusterIP"].as_str().unwrap().to_owned()).collect()
    };
    let before = addresses(&world.get("/api/v1/objects?kind=Service").await);
    assert!(before.iter().all(|address| address.starts_with("10.96.")), "{before:?}");
    let world = world.restart().await;
    assert_eq!(addresses(&world.get("/api/v1/objects?kind=Service").await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_runs_is_not_deleted_by_deleting_the_news_of_it() {
    let world = World::new(&[("shop.yaml", SHOP)]).await;
    world.run_pod("web-1", "web", "web", "10.244.0.2");
    world.eventually("/api/v1/objects?kind=Pod", |answer| answer["items"][0]["metadata"]["name"] == "web-1").await;
    let body = json!({"objects": [{"kind": "Pod", "namespace": "default", "name": "web-1"}]}).to_string();
    let (status, answer) = world.post("/api/v1/delete", &body).await;
    assert_eq!(status.as_u16(), 422);
    assert!(answer["diagnostics"][0]["help"].as_str().unwrap().contains("Deployment"));
}
