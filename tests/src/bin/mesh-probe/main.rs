//! What the mesh tests run in pods and beside them: it asks, answers and listens, and prints what it saw.

mod capture;
mod collector;
mod greeting;
mod http2;
mod load;
mod secrets;

use anyhow::Context as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["load", url, count, per_second] => load::run(url, number(count)?, number(per_second)?).await,
        ["http2", url] => http2::ask(url).await,
        ["http2-talk", url] => http2::talk(url).await,
        ["http2-server", port] => http2::serve(number(port)?).await,
        ["greetings", address, count] => greeting::run(address, number(count)?).await,
        ["secrets", socket] => secrets::ask(socket).await,
        ["capture"] => capture::run(),
        ["collect", port] => collector::run(number(port)?).await,
        _ => anyhow::bail!("these arguments are not understood: {words:?}"),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> anyhow::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    word.parse().with_context(|| format!("`{word}` is no such number"))
}
