//! `lateen explain`: what becomes of one request, and why; and what a message code means.

mod code;
mod diagram;
mod page;

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use http::Method;
use lateen_explain::question::SOMEBODY;
use lateen_explain::{From, Journey, Question, Url};

use super::authz::request::header;
use super::world::WorldOptions;
use super::{Misuse, WRONG};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A message code (IST0101) or its name (ReferencedResourceNotFound). Without one, and without --to, all are listed.
    #[arg(conflicts_with_all = ["to", "from", "via"])]
    code: Option<String>,
    /// Where a request is for: http, https, grpc, tcp or tls, as in http://reviews:9080/reviews/1.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    #[command(flatten)]
    request: RequestOptions,
    #[command(flatten)]
    world: WorldOptions,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

/// A request, but for where it is for.
#[derive(Debug, Args)]
struct RequestOptions {
    /// Who asks: a pod, a Deployment or an app, as NAME or NAME.NAMESPACE.
    #[arg(long, value_name = "WORKLOAD", requires = "to")]
    from: Option<String>,
    /// The gateway that the request comes to from outside: its workload or a Gateway; `gateway`, if there is only one.
    #[arg(long, value_name = "GATEWAY", requires = "to")]
    via: Option<String>,
    /// Method of an HTTP request.
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// A header of an HTTP request: `name: value`; repeatable.
    #[arg(short = 'H', long = "header", value_name = "HEADER", requires = "to")]
    headers: Vec<String>,
    /// The claims of a token that is taken for a good one, as JSON.
    #[arg(long, value_name = "JSON", requires = "to")]
    claims: Option<String>,
    /// The address of a client outside.
    #[arg(long, value_name = "ADDRESS", requires = "via")]
    ip: Option<IpAddr>,
}

/// For people, for programs, or as a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
    /// A sequence diagram in Mermaid's language.
    Mermaid,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Some(to) = &arguments.to else {
        if arguments.output == Form::Mermaid {
            return Err(Misuse::of("there is a diagram of a request, and none of message codes: say --to URL"));
        }
        return code::run(arguments.code.as_deref(), arguments.output == Form::Json);
    };
    let question = arguments.request.read(to, &arguments.world.namespace)?;
    let world = arguments.world.open()?;
    let journey = lateen_explain::explain(&world, &question).map_err(|why| Misuse::of(why.to_string()))?;
    match arguments.output {
        Form::Json => anstream::println!("{:#}", serde_json::to_value(&journey)?),
        Form::Mermaid => anstream::println!("{}", diagram::of(&journey)),
        Form::Table => anstream::println!("{}", page::of(&journey, page::width())),
    }
    Ok(if is_served(&journey) { ExitCode::SUCCESS } else { ExitCode::from(WRONG) })
}

/// Whether any of the requests comes to something.
fn is_served(journey: &Journey) -> bool {
    journey.results.iter().any(|ending| ending.served_by.is_some() || ending.status.is_some_and(|status| status < 400))
}

impl RequestOptions {
    fn read(&self, to: &str, namespace: &str) -> anyhow::Result<Question> {
        let url = Url::parse(to).map_err(|why| Misuse::of(why.to_string()))?;
        let method = &self.method;
        let from = match (&self.from, &self.via) {
            (Some(name), _) => From::Workload { name: name.clone(), namespace: namespace.to_owned() },
            (None, Some(_)) => From::Outside(self.ip.unwrap_or(SOMEBODY)),
            (None, None) => {
                return Err(Misuse::of("say who asks: --from WORKLOAD, or --via GATEWAY for somebody outside"));
            }
        };
        let claims = match &self.claims {
            None => None,
            Some(text) => {
                let read = lateen_engine::json::object(text.as_bytes());
                Some(read.map_err(|error| Misuse::of(format!("--claims is no JSON object: {error}")))?)
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        Ok(Question {
            from,
            url,
            via: self.via.clone(),
            method: Method::from_bytes(method.as_bytes())
                .map_err(|_| Misuse::of(format!("`{method}` is no method")))?,
            headers: self.headers.iter().map(|text| header(text)).collect::<anyhow::Result<_>>()?,
            claims,
            now,
        })
    }
}
