//! Rules for `Secret`: values that can be read, and what a certificate needs. No message holds a value.

use super::check::Check;
use crate::kubernetes::Secret;

pub(super) fn check(check: &mut Check<'_>, secret: &Secret) {
    for key in secret.undecodable() {
        check.error(
            format!("data.{key}"),
            format!("the value of `{key}` is not base64; plain text goes into `stringData`"),
        );
    }
    if secret.kind != "kubernetes.io/tls" {
        return;
    }
    for key in ["tls.crt", "tls.key"] {
        let there = secret.data.keys().chain(secret.string_data.keys()).any(|known| known == key);
        match secret.value(key) {
            None if !there => check.error("data", format!("a Secret of type kubernetes.io/tls needs `{key}`")),
            Some(value) if !value.windows(11).any(|part| part == b"-----BEGIN ") => {
                check.error(format!("data.{key}"), format!("`{key}` is not in PEM form"));
            }
            _ => {}
        }
    }
}
