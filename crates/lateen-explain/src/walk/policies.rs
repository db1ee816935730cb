//! What authorization policies say, each of them, and which decides.

use lateen_engine::filters::rbac::{RuleSets, Subject};
use lateen_mesh::{Authorization, Workload};

use super::Walk;
use super::telling::Telling;
use crate::journey::{Answer, Place, PolicyVerdict, Stage};
use crate::world::place;
use lateen_api::security::authorization_policy::Action;

impl Walk<'_> {
    /// Has the rules of one filter decide; the answer to who is denied.
    pub(super) fn ask(
        &self,
        telling: &mut Telling,
        workload: &Workload,
        rules: &RuleSets,
        filter: &str,
        subject: &Subject<'_>,
    ) -> Option<Answer> {
        let verdicts = rules.decide(subject);
        rules.tell(&verdicts, filter, &mut telling.metadata);
        let policies = self.world.mesh.authorization(workload);
        let all = [&policies.custom, &policies.audit, &policies.deny, &policies.allow];
        let matching = rules.matching(subject);
        let mut of_filter: Vec<&Authorization> = Vec::new();
        for (name, _) in rules.policies().iter().flatten().filter_map(named) {
            let found = all.into_iter().flatten().find(|it| format!("{}/{}", it.namespace, it.name) == name);
            of_filter.extend(found.map(|found| &**found));
        }
        of_filter.sort_by(|a, b| a.origin.cmp(&b.origin));
        of_filter.dedup_by(|a, b| a.origin == b.origin);
        for policy in &of_filter {
            let name = format!("{}/{}", policy.namespace, policy.name);
            let matched = matching.iter().flatten().filter_map(named);
            let rule = matched.filter(|(matched, _)| *matched == name).map(|(_, rule)| rule).min();
            self.tell_policy(telling, policy, name, rule);
        }
        let denied = verdicts.enforced.filter(|verdict| !verdict.allowed)?;
        let decided = denied.policy.as_deref().and_then(named);
        let policy = decided.as_ref().and_then(|(name, _)| telling.verdicts.iter().rfind(|it| it.policy == *name));
        let (why, places) = match policy {
            Some(verdict) if verdict.action == "CUSTOM" => (
                format!("the policy {} asks an authorizer that there is not", verdict.policy),
                vec![verdict.place.clone()],
            ),
            Some(verdict) => (format!("the policy {} denies it", verdict.policy), vec![verdict.place.clone()]),
            None => {
                let allow = of_filter.iter().map(|policy| place(&policy.origin)).collect();
                ("there are ALLOW policies, and none of them allows it".to_owned(), allow)
            }
        };
        Some(Answer {
            status: 403,
            why,
            flag: "",
            details: denied.details(),
            location: None,
            policy: decided.map(|(name, _)| name),
            places,
        })
    }

    fn tell_policy(&self, telling: &mut Telling, policy: &Authorization, name: String, rule: Option<usize>) {
        let action = match policy.spec.action {
            Action::Allow => "ALLOW",
            Action::Deny => "DENY",
            Action::Audit => "AUDIT",
            Action::Custom => "CUSTOM",
        };
        let line = rule.and_then(|rule| policy.rule_lines.get(rule).copied());
        let at = Place { line: line.unwrap_or(policy.origin.line), ..place(&policy.origin) };
        let verb = match policy.spec.action {
            Action::Allow => "allows it",
            Action::Deny => "denies it",
            Action::Audit => "has it logged",
            Action::Custom => "has an authorizer asked",
        };
        let tried = if policy.dry_run { " (only tried: dry run)" } else { "" };
        let said = match rule {
            Some(rule) => format!("{action} {name}: rule {rule} {verb}{tried}"),
            None => format!("{action} {name}: no rule of it is about this{tried}"),
        };
        telling.step(Stage::Policy, said).at([at.clone()]);
        telling.verdicts.push(PolicyVerdict { policy: name, action, dry_run: policy.dry_run, rule, place: at });
    }
}

/// `namespace/name` and the rule, of the name that a policy has in proxies: `ns[a]-policy[b]-rule[0]`.
fn named(policy: impl AsRef<str>) -> Option<(String, usize)> {
    let policy = policy.as_ref();
    let part = |open: &str| {
        let start = policy.find(open)? + open.len();
        let end = policy[start..].find(']')?;
        Some(&policy[start..start + end])
    };
    let (namespace, name, rule) = (part("ns[")?, part("policy[")?, part("rule[")?);
    Some((format!("{namespace}/{name}"), rule.parse().ok()?))
}
