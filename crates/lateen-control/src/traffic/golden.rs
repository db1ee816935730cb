//! What is known of requests: how many, how they ended, how long they took, how many bytes they had.

use std::collections::BTreeMap;

use lateen_live::BUCKETS;

/// How a request ended; empty: not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Outcome {
    pub code: Box<str>,
    pub grpc_status: Box<str>,
    pub flags: Box<str>,
}

impl Outcome {
    /// Whether the server, or the mesh, is to blame: 5xx and no answer, and gRPC's UNKNOWN, DEADLINE_EXCEEDED,
    /// UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS.
    pub(super) fn is_error(&self) -> bool {
        self.code.starts_with('5')
            || &*self.code == "0"
            || matches!(&*self.grpc_status, "2" | "4" | "12" | "13" | "14" | "15")
    }
}

/// Of a stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Golden {
    /// By index of their outcomes.
    pub requests: BTreeMap<u16, u64>,
    pub buckets: [u64; BUCKETS.len() + 1],
    /// Bytes from the caller, and to the caller.
    pub sent: u64,
    pub received: u64,
    pub opened: u64,
    pub closed: u64,
}

/// No number grows further, so that sums of them are numbers, too, whatever a proxy tells.
const MOST: u64 = 1 << 44;

/// Adds to a number.
pub(super) fn grow(number: &mut u64, more: u64) {
    *number = number.saturating_add(more).min(MOST);
}

impl Golden {
    pub(super) fn add(&mut self, other: &Self) {
        for (outcome, count) in &other.requests {
            grow(self.requests.entry(*outcome).or_default(), *count);
        }
        for (bucket, count) in self.buckets.iter_mut().zip(other.buckets) {
            grow(bucket, count);
        }
        grow(&mut self.sent, other.sent);
        grow(&mut self.received, other.received);
        grow(&mut self.opened, other.opened);
        grow(&mut self.closed, other.closed);
    }

    /// Milliseconds that this share of requests did not exceed: in a straight line within its bucket, at the last bound above
    /// all buckets (as Prometheus' `histogram_quantile`); none of nothing.
    #[expect(clippy::cast_precision_loss, reason = "numbers for people")]
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.buckets.iter().sum::<u64>() as f64;
        let (mut below, mut lower, mut any) = (0.0, 0.0, false);
        for (upper, count) in BUCKETS.iter().zip(self.buckets) {
            let count = count as f64;
            any |= count > 0.0;
            if count > 0.0 && below + count >= rank {
                return Some(lower + (upper - lower) * (rank - below) / count);
            }
            below += count;
            lower = *upper;
        }
        (any || self.buckets[BUCKETS.len()] > 0).then_some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let mut golden = Golden::default();
        assert_eq!(golden.quantile(0.5), None);
        (golden.buckets[1], golden.buckets[2]) = (50, 50);
        assert_eq!([0.5, 0.75, 1.0].map(|share| golden.quantile(share)), [Some(1.0), Some(3.0), Some(5.0)]);
        let mut slow = Golden::default();
        slow.buckets[BUCKETS.len()] = 2;
        assert_eq!(slow.quantile(0.5), Some(3_600_000.0), "nobody knows how much longer");
    }

    #[test]
    fn errors_are_the_servers_or_the_meshs() {
        let of = |code: &str, grpc_status: &str| Outcome {
            code: code.into(),
            grpc_status: grpc_status.into(),
            flags: "".into(),
        };
        for (code, status, wanted) in [
            ("200", "", false),
            ("404", "", false),
            ("503", "", true),
            ("0", "", true),
            ("200", "14", true),
            ("200", "5", false),
        ] {
            assert_eq!(of(code, status).is_error(), wanted, "{code} {status}");
        }
    }
}
