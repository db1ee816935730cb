//! One replica speaks for all: whoever holds the Lease writes what the others would contradict. What every replica writes alike
//! (certificates, for instance) needs no leader, and does not wait for one.
//!
//! As Kubernetes' own controllers do it (client-go, `tools/leaderelection`): a holder renews in time or stands down, and others
//! take over once they have not seen it renewed for as long as it said. Clocks of different machines are never compared.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The Lease, in the control plane's own namespace; of all revisions together, since all speak of the same objects.
pub const LEASE: &str = "lateend-leader";
/// So long after its last renewal nobody takes a Lease over.
const DURATION: Duration = Duration::from_secs(15);
/// Who has not been able to renew for this long stands down, well before somebody else may begin.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at it.
const PERIOD: Duration = Duration::from_secs(2);

/// Takes part for as long as we serve, and tells whether we are the one.
pub(crate) fn stand(
    client: Client,
    namespace: &str,
    stop: CancellationToken,
) -> (watch::Receiver<bool>, impl Future<Output = ()>) {
    let (told, leading) = watch::channel(false);
    let candidate = Candidate { api: Api::namespaced(client, namespace), name: own_name(), seen: None };
    (leading, candidate.run(told, stop))
}

/// The pod's name, and something that no earlier process in it had.
fn own_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{:08x}", host.trim(), rand::random::<u32>())
}

struct Candidate {
    api: Api<Lease>,
    name: String,
    /// The Lease as it was when it last changed, and when we saw that.
    seen: Option<(Lease, Instant)>,
}

impl Candidate {
    async fn run(mut self, told: watch::Sender<bool>, stop: CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            match self.look().await {
                Ok(true) => {
                    renewed = Instant::now();
                    tell(&told, true);
                }
                Ok(false) => tell(&told, false),
                Err(error) => {
                    tracing::debug!(%error, lease = LEASE, "the lease cannot be read or renewed");
                    if renewed.elapsed() >= DEADLINE {
                        tell(&told, false);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = stop.cancelled() => break,
            }
        }
        if *told.borrow() {
            tell(&told, false);
            self.release().await;
        }
    }

    /// Takes or renews the Lease where it is ours or nobody's; whether we have it then. An error that takes longer than the deadline
    /// to come is no less one.
    async fn look(&mut self) -> anyhow::Result<bool> {
        Ok(tokio::time::timeout(DEADLINE, self.try_take()).await??)
    }

    async fn try_take(&mut self) -> kube::Result<bool> {
        let Some(lease) = self.api.get_opt(LEASE).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.claim(&LeaseSpec::default())),
            };
            return self.written(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        match &self.seen {
            Some((before, _)) if *before == lease => {}
            _ => self.seen = Some((lease.clone(), Instant::now())),
        }
        let unchanged = self.seen.as_ref().map(|(_, since)| since.elapsed()).unwrap_or_default();
        if !may_take(&spec, &self.name, unchanged) {
            return Ok(false);
        }
        let claimed = Lease { spec: Some(self.claim(&spec)), ..lease };
        self.written(self.api.replace(LEASE, &PostParams::default(), &claimed).await)
    }

    /// Of two that write at once the API server takes one, by the version that they have read.
    fn written(&mut self, answer: kube::Result<Lease>) -> kube::Result<bool> {
        match answer {
            Ok(lease) => {
                self.seen = Some((lease, Instant::now()));
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn claim(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let is_ours = before.holder_identity.as_ref() == Some(&self.name);
        LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if is_ours { before.acquire_time.clone() } else { Some(now.clone()) },
            lease_transitions: Some(before.lease_transitions.unwrap_or_default() + i32::from(!is_ours)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }

    /// So that the next one need not wait. It is no harm if this fails.
    async fn release(self) {
        let Some((mut lease, _)) = self.seen else { return };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        if let Err(error) = self.api.replace(LEASE, &PostParams::default(), &lease).await {
            tracing::debug!(%error, lease = LEASE, "the lease is not given back");
        }
    }
}

/// Whether a Lease that has not changed for this long is ours or nobody's.
fn may_take(spec: &LeaseSpec, name: &str, unchanged: Duration) -> bool {
    let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    match spec.holder_identity.as_deref() {
        None | Some("") => true,
        Some(holder) => holder == name || unchanged >= lasts.map_or(DURATION, Duration::from_secs),
    }
}

fn tell(told: &watch::Sender<bool>, is_leader: bool) {
    told.send_if_modified(|before| {
        let changed = *before != is_leader;
        if changed {
            tracing::info!(lease = LEASE, is_leader, "the leader has changed");
        }
        *before = is_leader;
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_over_when_it_has_run_out_and_not_before() {
        let of = |holder: Option<&str>| LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        for (holder, seconds, may) in [
            (None, 0, true),
            (Some(""), 0, true),
            (Some("us"), 100, true),
            (Some("them"), 0, false),
            (Some("them"), 14, false),
            (Some("them"), 15, true),
        ] {
            assert_eq!(may_take(&of(holder), "us", Duration::from_secs(seconds)), may, "{holder:?} after {seconds} s");
        }
    }
}
