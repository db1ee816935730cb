//! A collector of spans that prints each as a line of JSON.

use std::net::Ipv4Addr;
use std::time::Duration;

use lateen_testing::collector::{Collector, Span};
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[expect(clippy::print_stdout, reason = "the test reads it")]
pub(crate) async fn run(port: u16) -> anyhow::Result<()> {
    let collector = Collector::on(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?);
    let mut printed = 0;
    loop {
        for span in &collector.spans()[printed..] {
            println!("{}", shown(span));
            printed += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn shown(span: &Span) -> Value {
    json!({
        "trace": span.trace, "id": span.id, "parent": span.parent, "name": span.name, "kind": span.kind,
        "service": span.resource.get("service.name"), "tags": span.tags,
    })
}
