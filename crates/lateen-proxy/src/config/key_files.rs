//! Keys that a listener's JWT providers have in files: read once, when the listener is taken.

use lateen_engine::config::{ConfigError, Listener};
use lateen_engine::filters::http::jwt_authn::Keys;
use lateen_engine::jwt::KeySet;

/// Reads them, and says of those that are none why they are not.
pub(crate) fn read(listener: &Listener) -> Vec<ConfigError> {
    let filters = listener.managers().flat_map(|manager| manager.jwt_filters());
    let keys = filters.flat_map(|filter| filter.providers.iter()).filter_map(|provider| match &provider.keys {
        Keys::File(name, keys) if keys.get().is_none() => Some((name, keys)),
        _ => None,
    });
    let mut wrong = Vec::new();
    for (name, keys) in keys {
        let text = std::fs::read(name).map_err(|error| error.to_string());
        match text.and_then(|text| KeySet::parse(&text).map_err(|failure| failure.to_string())) {
            // Nobody else writes it meanwhile: the control thread takes listeners one by one.
            Ok(found) => drop(keys.set(found)),
            Err(reason) => wrong.push(ConfigError {
                resource: listener.name.to_string(),
                field: "local_jwks.filename".to_owned(),
                reason: format!("{name}: {reason}"),
            }),
        }
    }
    wrong
}
