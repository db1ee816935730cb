//! `RouteAction.UpgradeConfig`: which upgrades a route allows or forbids, and what becomes of the bytes behind a CONNECT
//! (RFC 9110 section 9.3.6).

use envoy_types::pb::envoy::config::route::v3::route_action as proto;

use crate::config::cluster::ProxyProtocol;
use crate::config::error::{At, refuse};
use crate::config::scalar::bool_or;

/// What CONNECT is called among upgrades.
pub const CONNECT: &str = "connect";

/// What a route says of upgrades.
#[derive(Debug, Default)]
pub struct Upgrades {
    /// In lower case, each allowed or not.
    kinds: Vec<(String, bool)>,
    /// Where CONNECT ends here; none: it is passed on.
    pub connect: Option<Connect>,
}

/// What comes behind a CONNECT goes to a host of the cluster as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Before it, this tells of the client.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Upgrades {
    pub(super) fn from_xds(configs: &[proto::UpgradeConfig], at: &At) -> Self {
        let mut upgrades = Self::default();
        for (index, config) in configs.iter().enumerate() {
            let at = at.index("upgrade_configs", index);
            let kind = config.upgrade_type.to_ascii_lowercase();
            let enabled = bool_or(config.enabled.as_ref(), true);
            if enabled && kind == "connect-udp" {
                at.field("upgrade_type").error(format!("{} is not supported", config.upgrade_type));
            }
            if upgrades.kinds.iter().any(|(known, _)| *known == kind) {
                at.field("upgrade_type").error(format!("{} is there twice", config.upgrade_type));
            }
            if let Some(connect) = &config.connect_config {
                let at = at.field("connect_config");
                if kind != CONNECT {
                    at.error("is for CONNECT only");
                }
                refuse!(at, connect; allow_post);
                let proxy_protocol = connect.proxy_protocol_config.as_ref();
                let at_proxy = at.field("proxy_protocol_config");
                let proxy_protocol = proxy_protocol.map(|config| ProxyProtocol::from_xds(config, &at_proxy));
                upgrades.connect = Some(Connect { proxy_protocol });
            }
            upgrades.kinds.push((kind, enabled));
        }
        upgrades
    }

    /// Whether an upgrade is allowed: the route's word, else whether it is among those of the connection manager.
    pub fn allow(&self, kind: &str, of_manager: &[String]) -> bool {
        match self.kinds.iter().find(|(name, _)| name == kind) {
            Some((_, allowed)) => *allowed,
            None => of_manager.iter().any(|name| name == kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        text: &[(&str, Option<bool>, Option<proto::upgrade_config::ConnectConfig>)],
    ) -> Result<Upgrades, Vec<String>> {
        let configs: Vec<proto::UpgradeConfig> = text
            .iter()
            .map(|(kind, enabled, connect)| proto::UpgradeConfig {
                upgrade_type: (*kind).to_owned(),
                enabled: enabled.map(|value| envoy_types::pb::google::protobuf::BoolValue { value }),
                connect_config: connect.clone(),
            })
            .collect();
        let at = At::resource("r");
        let upgrades = Upgrades::from_xds(&configs, &at);
        at.finish(Some(upgrades)).map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_routes_word_goes_before_the_managers() {
        let of_manager = ["websocket".to_owned(), CONNECT.to_owned()];
        let own = read(&[("WebSocket", Some(false), None), ("foo", None, None)]).expect("nothing is wrong");
        let allowed = ["websocket", "foo", CONNECT, "bar"].map(|kind| own.allow(kind, &of_manager));
        assert_eq!((allowed, own.connect), ([false, true, true, false], None));
    }

    #[test]
    fn what_cannot_be_honoured_is_told_by_name() {
        let ends_here = proto::upgrade_config::ConnectConfig::default();
        assert_eq!(
            read(&[("CONNECT", None, Some(ends_here.clone()))]).expect("nothing is wrong").connect,
            Some(Connect { proxy_protocol: None })
        );
        let post = proto::upgrade_config::ConnectConfig { allow_post: true, ..ends_here.clone() };
        let wrong = read(&[
            ("CONNECT", None, Some(post)),
            ("websocket", None, Some(ends_here)),
            ("connect", None, None),
            ("CONNECT-UDP", None, None),
        ]);
        assert_eq!(
            wrong.expect_err("all of it is wrong"),
            [
                "r: upgrade_configs[0].connect_config.allow_post: is not supported",
                "r: upgrade_configs[1].connect_config: is for CONNECT only",
                "r: upgrade_configs[2].upgrade_type: connect is there twice",
                "r: upgrade_configs[3].upgrade_type: CONNECT-UDP is not supported",
            ]
        );
    }
}
