//! Bookinfo: four small services (productpage, details, reviews, ratings) that speak the paths, ports, headers and
//! version behaviour that the well-known Bookinfo manifests expect, so that a mesh can be tried without any image.

mod client;
mod details;
mod http;
mod page;
mod productpage;
mod ratings;
mod reviews;

use std::net::SocketAddr;

use clap::{Parser, Subcommand, ValueEnum};

/// One Bookinfo service, listening until it is told to stop.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    service: Service,
    /// Address to listen on.
    #[arg(long, global = true, default_value = "0.0.0.0:9080", env = "BOOKINFO_LISTEN")]
    listen: SocketAddr,
}

#[derive(Subcommand)]
enum Service {
    /// The web page; calls details and reviews.
    Productpage,
    /// Facts about a book.
    Details {
        /// v1 knows the book by itself; v2 asks a public book service when ENABLE_EXTERNAL_BOOK_SERVICE is "true".
        #[arg(long, value_enum, default_value = "v1", env = "SERVICE_VERSION")]
        version: details::Version,
    },
    /// Reviews of a book; v2 and v3 call ratings.
    Reviews {
        /// v1 shows no stars, v2 black ones, v3 red ones.
        #[arg(long, value_enum, default_value = "v1", env = "SERVICE_VERSION")]
        version: reviews::Version,
    },
    /// Stars given to a book.
    Ratings,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { service, listen } = Arguments::parse();
    let router = match service {
        Service::Productpage => productpage::router(),
        Service::Details { version } => details::router(version),
        Service::Reviews { version } => reviews::router(version),
        Service::Ratings => ratings::router(),
    };
    http::serve(listen, router).await
}

impl std::fmt::Display for reviews::Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().expect("no version is hidden").get_name())
    }
}
