//! The API over its socket.

use std::os::unix::fs::PermissionsExt as _;

use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::world::{SHOP, World};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_can_open_the_socket() {
    let world = World::new(&[]).await;
    let mode = std::fs::metadata(&world.running.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_with_mistakes_is_refused_whole_with_their_places() {
    let world = World::new(&[]).await;
    let text = SHOP.replace("port: 80", "prot: 80");
    let (status, answer) = world.post("/api/v1/apply?file=shop.yaml", &text).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let first = &answer["diagnostics"][0];
    assert_eq!((&first["file"], &first["line"]), (&json!("shop.yaml"), &json!(8)), "{first:#}");
    assert_eq!(world.names("Namespace").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_texts_are_applied_all_or_none_each_under_its_name() {
    let world = World::new(&[]).await;
    let account = |name: &str| format!("\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n");
    let texts = |second: &str| json!([{"file": "/a.yaml", "text": account("a")}, {"file": "/b.yaml", "text": second}]);
    let path = "/api/v1/apply?several=true";
    let (status, answer) = world.post(path, &texts(&account("a")).to_string()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let twice = &answer["diagnostics"][0];
    assert!(twice["file"] == "/b.yaml" && twice["message"].as_str().unwrap().contains("/a.yaml:2"), "{twice:#}");
    assert_eq!(world.names("ServiceAccount").await, Vec::<String>::new());
    world.post(path, &texts(&account("b")).to_string()).await;
    let listed = world.get("/api/v1/objects?kind=ServiceAccount&name=b").await;
    assert_eq!(listed["items"][0]["metadata"]["annotations"]["lateen.dev/origin"], "/b.yaml:2", "{listed:#}");
    let (status, _) = world.post(path, &account("c")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_happen() {
    let world = World::new(&[]).await;
    let before = world.get("/api/v1/objects?kind=Service").await;
    let (_, answer) = world.post("/api/v1/apply?dryRun=true", SHOP).await;
    assert_eq!(answer["results"].as_array().unwrap().len(), 3);
    assert_eq!(answer["results"][0]["action"], "created");
    assert_eq!(world.get("/api/v1/objects?kind=Service").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_cannot_leave_the_folder_it_is_kept_in() {
    let world = World::new(&[]).await;
    let text = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: ../../evil}\n";
    let (status, _) = world.post("/api/v1/apply", text).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_make_no_sense_are_said_to() {
    let world = World::new(&[]).await;
    for path in ["/api/v1/objects?kind=Nonsense", "/api/v1/objects", "/api/v1/watch?kinds=", "/api/v1/watch?kinds=Foo"]
    {
        let (status, _) = world.call(Method::GET, path, String::new()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
    }
    let (status, _) = world.call(Method::GET, "/api/v1/watch?kinds=Pod&revision=77", String::new()).await;
    assert_eq!(status, StatusCode::GONE);
    let (status, _) = world.post("/api/v1/token", r#"{"namespace": "a/b", "serviceAccount": "x", "pod": "p"}"#).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_there_is_and_then_what_changes() {
    let world = World::new(&[("shop.yaml", SHOP)]).await;
    let mut stream = UnixStream::connect(&world.running.socket).await.unwrap();
    let request = "GET /api/v1/watch?kinds=Service,Namespace HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = async || loop {
        let line = lines.next_line().await.unwrap().expect("the stream goes on");
        if let Ok(event) = serde_json::from_str::<serde_json::Value>(&line)
            && event.is_object()
        {
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            return (event["type"].as_str().unwrap().to_owned(), name);
        }
    };
    let event = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    assert_eq!(next().await, event("ADDED", "default"));
    assert_eq!(next().await, event("ADDED", "cart"));
    assert_eq!(next().await, event("ADDED", "web"));
    assert_eq!(next().await, event("SYNCED", ""));
    let (shop, _) = SHOP.rsplit_once("---").unwrap();
    world.save("shop.yaml", &shop.replace("port: 80", "port: 81"));
    assert_eq!(next().await, event("DELETED", "cart"));
    assert_eq!(next().await, event("MODIFIED", "web"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_injected_by_the_label_of_its_namespace() {
    let world = World::new(&[("shop.yaml", SHOP)]).await;
    let pod = |namespace: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace},
            "spec": {"containers": [{"name": "app", "image": "x"}]}})
        .to_string()
    };
    let (_, answer) = world.post("/api/v1/inject", &pod("default")).await;
    assert_eq!(
        (&answer["injected"], &answer["pod"]["spec"]["containers"][1]["name"]),
        (&json!(true), &json!("istio-proxy"))
    );
    let (_, answer) = world.post("/api/v1/inject", &pod("elsewhere")).await;
    assert_eq!(answer["injected"], false);
    assert!(answer["reason"].as_str().unwrap().contains("istio-injection"));
}
