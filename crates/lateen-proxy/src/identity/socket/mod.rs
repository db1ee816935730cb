//! The workload's identity at a Unix socket, by Envoy's secret discovery service: taken from somebody else (such as a SPIRE
//! agent), and given to others in the pod (an Envoy, a gRPC program). The names are Istio's, `default` and `ROOTCA`.

mod give;
mod take;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::bootstrap::env;

pub(crate) use give::{Place, give};
pub(crate) use take::take;

/// Where Istio has the socket, whoever listens at it.
const FOLDER: &str = "/var/run/secrets/workload-spiffe-uds";
const NAME: &str = "socket";

/// From where the identity is taken, if not from the authority, and where it is given to others.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) take: Option<PathBuf>,
    pub(crate) give: Option<Place>,
}

impl Sockets {
    /// As the environment says.
    ///
    /// # Errors
    /// A variable that makes no sense, by its name.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let named = |name: &str| env::variable(name).filter(|text| !text.is_empty());
        let take = named(env::IDENTITY_SOCKET).map(|path| Path::new(FOLDER).join(path));
        let give = named(env::SECRETS_SOCKET).map(PathBuf::from);
        let peers = named(env::SECRETS_PEERS).map(|text| peers(&text)).transpose()?.unwrap_or_default();
        Ok(Self { take, give: give.map(|path| Place { path, peers }) })
    }

    /// The same of a proxy of a mesh. What the environment does not say is told by the folder: whoever listens there gives the
    /// identity; if nobody does, we do.
    ///
    /// # Errors
    /// As [`Self::from_environment`].
    pub(crate) fn of_member() -> anyhow::Result<Self> {
        let mut sockets = Self::from_environment()?;
        let path = Path::new(FOLDER).join(NAME);
        if sockets.take.is_some() || !Path::new(FOLDER).is_dir() {
            return Ok(sockets);
        }
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            sockets.take = Some(path);
        } else if sockets.give.is_none() {
            let listed = env::variable(env::SECRETS_PEERS).map(|text| peers(&text)).transpose()?;
            sockets.give = Some(Place { path, peers: listed.unwrap_or_default() });
        }
        Ok(sockets)
    }
}

/// Numbers of users.
fn peers(text: &str) -> anyhow::Result<Vec<u32>> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let numbers: Result<_, _> = names.map(str::parse).collect();
    numbers.with_context(|| format!("{}={text} is no list of users' numbers", env::SECRETS_PEERS))
}

#[cfg(test)]
mod tests {
    use super::peers;

    #[test]
    fn peers_are_numbers() {
        assert_eq!(peers("").expect("nobody"), [0u32; 0]);
        assert_eq!(peers("1000, 1001,").expect("two"), [1000, 1001]);
        assert!(peers("1000,app").is_err() && peers("-1").is_err());
    }
}
