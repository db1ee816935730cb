//! From one root to the next, in steps that a crash may fall between.

use std::path::Path;

use rustls_pki_types::UnixTime;

use super::super::own::age_key;
use super::*;
use crate::Trust;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn load(folder: &Path, at: SystemTime) -> CertificateAuthority {
    CertificateAuthority::load_or_create(folder, "cluster.local", at).unwrap()
}

fn advance(folder: &Path, at: SystemTime) -> CertificateAuthority {
    CertificateAuthority::advance(folder, "cluster.local", at).unwrap()
}

fn stage(ca: &CertificateAuthority) -> Stage {
    ca.rotation().unwrap().stage
}

fn issue(ca: &CertificateAuthority, at: SystemTime) -> CertificateDer<'static> {
    let request = SigningRequest::from_pem(Request::new(&id()).unwrap().pem()).unwrap();
    leaf(&ca.issue(&request, &id(), None, at).unwrap())
}

/// Whether those who trust this authority's roots believe a certificate.
fn believed(ca: &CertificateAuthority, leaf: &CertificateDer<'_>, at: SystemTime) -> bool {
    let trust = Trust::of("cluster.local", ca.roots().clone()).authorities();
    let time = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    trust.verify(leaf, &[], time, webpki::KeyUsage::client_auth(), &crate::tls::provider()).is_ok()
}

#[test]
fn at_each_step_everybody_believes_what_the_steps_before_and_after_sign() {
    let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let folder = folder.path();
    let mut steps = vec![load(folder, now)];
    for _ in 0..3 {
        steps.push(advance(folder, now));
    }
    let stages: Vec<_> = steps.iter().map(stage).collect();
    assert_eq!(stages, [Stage::Settled, Stage::Introduced, Stage::Retiring, Stage::Settled]);
    for pair in steps.windows(2) {
        let [one, next] = pair else { unreachable!("windows are of two") };
        // A proxy that is still at one step meets what has been signed at the next, and the other way round; when the old root
        // is dropped, nothing that it has signed is left.
        assert!(believed(one, &issue(next, now), now), "{:?}, {:?}", stage(one), stage(next));
        assert!(believed(next, &issue(one, now), now), "{:?}, {:?}", stage(one), stage(next));
    }
    assert!(!believed(&steps[3], &issue(&steps[0], now), now), "the first root is gone");
    assert_ne!(steps[0].roots(), steps[3].roots());
    // Another start finds the same.
    assert_eq!(load(folder, now).roots(), steps[3].roots());
    assert!(!folder.join("next-key.pem").exists());
}

#[test]
fn each_step_has_its_time() {
    let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let folder = folder.path();
    let about = |due: SystemTime, expected: SystemTime| {
        let apart = due.duration_since(expected).or_else(|_| expected.duration_since(due)).unwrap();
        assert!(apart < Duration::from_secs(600), "{apart:?}");
    };
    about(load(folder, now).rotation().unwrap().due, now + ROOT_LIFETIME * 4 / 5);
    about(advance(folder, now).rotation().unwrap().due, now + DEFAULT_LIFETIME);
    about(advance(folder, now).rotation().unwrap().due, now + MAX_LIFETIME);
    age_key(folder, DAY * 30);
    about(load(folder, now).rotation().unwrap().due, now + MAX_LIFETIME - DAY * 30);
}

#[test]
fn nothing_is_waited_for_that_a_root_can_do_no_more() {
    let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let folder = folder.path();
    // Ten years ago, and a day.
    let expired = load(folder, now - ROOT_LIFETIME - DAY);
    assert!(expired.rotation().unwrap().due < now);
    for expected in [Stage::Introduced, Stage::Retiring, Stage::Settled] {
        let ca = advance(folder, now);
        assert_eq!(stage(&ca), expected);
        assert!(expected == Stage::Settled || ca.rotation().unwrap().due <= now, "{expected:?} is over at once");
    }
    assert!(believed(&load(folder, now), &issue(&load(folder, now), now), now));
}

#[test]
fn a_crash_leaves_a_step_undone_or_done() {
    let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let folder = folder.path();
    let first = load(folder, now);
    let key = std::fs::read(folder.join("ca-key.pem")).unwrap();
    // The next key is written, its root is not.
    advance(folder, now);
    std::fs::write(folder.join("root-cert.pem"), first.roots().to_pem()).unwrap();
    assert_eq!(stage(&load(folder, now)), Stage::Settled);
    let introduced = advance(folder, now);
    assert_eq!((stage(&introduced), introduced.roots().roots().len()), (Stage::Introduced, 2));
    // The next key has taken over, and lies there still.
    let next = std::fs::read(folder.join("next-key.pem")).unwrap();
    assert_ne!(key, next);
    std::fs::write(folder.join("ca-key.pem"), &next).unwrap();
    let retiring = load(folder, now);
    assert_eq!(stage(&retiring), Stage::Retiring);
    assert!(believed(&introduced, &issue(&retiring, now), now));
    assert_eq!(stage(&advance(folder, now)), Stage::Settled);
}
