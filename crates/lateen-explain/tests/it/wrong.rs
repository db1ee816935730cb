//! What a tired person types: one sentence each, with what to type.

use lateen_explain::explain;

use crate::{question, shop};

#[test]
fn each_mistake_gets_one_sentence() {
    let world = shop("");
    for (from, to, expected) in [
        ("clinet", "http://web/", "there is no workload `clinet` in namespace `default`, did you mean `client`?"),
        (
            "nobody",
            "http://web/",
            "there is no workload `nobody` in namespace `default`; there are: client, naked, web-v1, web-v2",
        ),
        ("client.shop", "http://web/", "there is no workload `client` in namespace `shop`: say `client.default`"),
        ("client", "http://wbe/", "`wbe` is no name that a pod could resolve, did you mean `web`?"),
        (
            "client",
            "http://web.shop.svc.cluster.local/",
            "`web.shop.svc.cluster.local` is no name that a pod could resolve: did you mean \
             `web.default.svc.cluster.local`?",
        ),
        (
            "client",
            "http://web.defualt/",
            "`web.defualt` is no name that a pod could resolve: did you mean `web.default.svc.cluster.local`?",
        ),
        (
            "client",
            "http://web:81/x",
            "web.default.svc.cluster.local has no port 81; it has 80 (http), 9000 (tcp-admin), write `http://web:80/x`",
        ),
        (
            "client",
            "https://web/",
            "web.default.svc.cluster.local has no port 443, which is what `https://web/` means; it has 80 (http), \
             9000 (tcp-admin), write `https://web:80/`",
        ),
    ] {
        let error = explain(&world, &question(from, to, &[])).map(|journey| journey.request).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
