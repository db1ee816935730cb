//! How old an HTTP connection may grow: `HttpProtocolOptions.max_connection_duration`.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::HttpProtocolOptions;

use super::error::At;
use super::scalar::duration;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxAge {
    duration: Duration,
    /// Up to this part of it comes on top, so that connections that began together do not end together
    /// (`max_connection_duration_jitter`; Envoy ignores it upstream, where it is as useful).
    jitter: f64,
}

impl MaxAge {
    /// None without a limit.
    pub(crate) fn from_xds(common: &HttpProtocolOptions, at: &At) -> Option<Self> {
        let jitter = common.max_connection_duration_jitter.as_ref().map_or(0.0, |percent| percent.value);
        if !(0.0..=100.0).contains(&jitter) {
            at.field("max_connection_duration_jitter").error("must be from 0 to 100");
        }
        let at = at.field("max_connection_duration");
        let duration = duration(common.max_connection_duration.as_ref(), &at).filter(|duration| !duration.is_zero())?;
        Some(Self { duration, jitter: jitter.clamp(0.0, 100.0) / 100.0 })
    }

    /// Of one connection.
    pub fn draw(self, random: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "it is drawn from far fewer values")]
        let part = random as f64 / u64::MAX as f64;
        self.duration + self.duration.mul_f64(self.jitter * part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_comes_on_top() {
        let hour = Duration::from_secs(3600);
        let age = MaxAge { duration: hour, jitter: 0.25 };
        assert_eq!([age.draw(0), age.draw(u64::MAX)], [hour, hour + hour / 4]);
    }
}
