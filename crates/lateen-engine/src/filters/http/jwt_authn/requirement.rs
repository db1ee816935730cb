//! `JwtRequirement`: which tokens a request must have. Evaluated as Envoy does, in order, with what each accepted token
//! changes in the request seen by what is looked at next.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as proto;
use proto::jwt_requirement::RequiresType;

use super::extract::Places;
use super::provider::{Audiences, Provider};
use super::{Looking, Stop};
use crate::config::error::At;
use crate::config::metadata::Value;
use crate::jwt::{Failure, Token};
use crate::message::RequestHead;
use crate::metadata::Fields;

#[derive(Debug)]
pub(super) enum Requirement {
    /// Every token in the provider's places, one at least, is the provider's and good.
    Provider(Arc<Provider>, Option<Audiences>),
    /// The first that is met decides.
    Any(Vec<Self>, Otherwise),
    All(Vec<Self>),
    /// Every token in the places of all providers is good for the one of its issuer; or, if they may be bad, whatever is
    /// good is taken.
    Whatever {
        places: Places,
        providers: Vec<Arc<Provider>>,
        bad_is_fine: bool,
    },
    Nothing,
}

/// What becomes of a request that meets none of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Otherwise {
    Fail,
    /// It passes if there was no token.
    AllowMissing,
    AllowMissingOrFailed,
}

/// Providers by name.
pub(super) type Providers = HashMap<String, Arc<Provider>>;

impl Requirement {
    pub(super) fn from_xds(requirement: &proto::JwtRequirement, providers: &Providers, at: &At) -> Option<Self> {
        Some(match requirement.requires_type.as_ref() {
            None => Self::Nothing,
            Some(RequiresType::ProviderName(name)) => {
                Self::Provider(named(name, providers, &at.field("provider_name"))?, None)
            }
            Some(RequiresType::ProviderAndAudiences(with)) => {
                let provider =
                    named(&with.provider_name, providers, &at.field("provider_and_audiences.provider_name"))?;
                let own = (!with.audiences.is_empty()).then(|| Audiences::new(&with.audiences));
                Self::Provider(provider, own)
            }
            Some(RequiresType::RequiresAny(list)) => any(&list.requirements, providers, &at.field("requires_any"))?,
            Some(RequiresType::RequiresAll(list)) => {
                let at = at.field("requires_all");
                Self::All(each(&list.requirements, providers, &at)?)
            }
            Some(RequiresType::AllowMissing(_)) => Self::whatever(providers, false),
            Some(RequiresType::AllowMissingOrFailed(_)) => Self::whatever(providers, true),
            Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
                at.refuse_if("extract_only_without_validation", true);
                return None;
            }
        })
    }

    fn whatever(providers: &Providers, bad_is_fine: bool) -> Self {
        let mut names: Vec<_> = providers.keys().collect();
        names.sort();
        let providers: Vec<_> = names.into_iter().map(|name| Arc::clone(&providers[name])).collect();
        let mut places = Places::default();
        for provider in &providers {
            places.add(&provider.places);
        }
        Self::Whatever { places, providers, bad_is_fine }
    }

    /// # Errors
    /// Why the request does not meet it, or that keys must be fetched first.
    pub(super) fn evaluate(&self, head: &mut RequestHead, looking: &mut Looking<'_>) -> Result<(), Stop> {
        match self {
            Self::Nothing => Ok(()),
            Self::Provider(provider, audiences) => of_provider(provider, audiences.as_ref(), head, looking),
            Self::All(all) => all.iter().try_for_each(|each| each.evaluate(head, looking)),
            Self::Any(list, otherwise) => {
                let mut worst = Failure::Missing;
                for one in list {
                    match one.evaluate(head, looking) {
                        Ok(()) => return Ok(()),
                        // That there is none, or none of the issuer's, says least.
                        Err(Stop::Failed(failure)) => {
                            let says = !matches!(failure, Failure::Missing | Failure::UnknownIssuer);
                            if says || worst == Failure::Missing {
                                worst = failure;
                            }
                        }
                        Err(stop) => return Err(stop),
                    }
                }
                match otherwise {
                    Otherwise::AllowMissingOrFailed => Ok(()),
                    Otherwise::AllowMissing if worst == Failure::Missing => Ok(()),
                    _ => Err(Stop::Failed(worst)),
                }
            }
            Self::Whatever { places, providers, bad_is_fine } => {
                of_anybody(places, providers, *bad_is_fine, head, looking)
            }
        }
    }
}

fn named(name: &str, providers: &Providers, at: &At) -> Option<Arc<Provider>> {
    let found = providers.get(name).map(Arc::clone);
    if found.is_none() {
        at.error(format!("there is no provider `{name}`"));
    }
    found
}

fn each(list: &[proto::JwtRequirement], providers: &Providers, at: &At) -> Option<Vec<Requirement>> {
    if list.len() < 2 {
        at.field("requirements").error("needs two at least");
    }
    let read = |(index, one)| Requirement::from_xds(one, providers, &at.index("requirements", index));
    list.iter().enumerate().map(read).collect()
}

fn any(list: &[proto::JwtRequirement], providers: &Providers, at: &At) -> Option<Requirement> {
    let otherwise = |one: &proto::JwtRequirement| match one.requires_type {
        Some(RequiresType::AllowMissing(_)) => Otherwise::AllowMissing,
        Some(RequiresType::AllowMissingOrFailed(_)) => Otherwise::AllowMissingOrFailed,
        _ => Otherwise::Fail,
    };
    let most = list.iter().map(otherwise).max().unwrap_or(Otherwise::Fail);
    let compiled = each(list, providers, at)?;
    let kept = compiled.into_iter().zip(list).filter(|(_, one)| otherwise(one) == Otherwise::Fail);
    Some(Requirement::Any(kept.map(|(compiled, _)| compiled).collect(), most))
}

fn of_provider(
    provider: &Arc<Provider>,
    audiences: Option<&Audiences>,
    head: &mut RequestHead,
    looking: &mut Looking<'_>,
) -> Result<(), Stop> {
    for name in provider.written_headers() {
        head.headers.remove(name);
    }
    let mut tokens = provider.places.extract(head);
    if tokens.is_empty() {
        return Err(note(provider, Failure::Missing.into(), looking));
    }
    // All of them must be good: which one the application reads, nobody knows. The last place is looked at first, as in
    // Envoy.
    while let Some(carried) = tokens.pop() {
        let verified = Token::parse(&carried.token).map_err(Stop::from).and_then(|token| {
            provider.check(&token, &carried, audiences, looking.now)?;
            looking.verify(provider, &token)?;
            Ok(token)
        });
        match verified {
            Ok(token) => provider.accept(token, &carried, head, &mut looking.said),
            Err(stop) => return Err(note(provider, stop, looking)),
        }
    }
    Ok(())
}

/// Without a provider to ask, each token is held against the first of its issuer.
fn of_anybody(
    places: &Places,
    providers: &[Arc<Provider>],
    bad_is_fine: bool,
    head: &mut RequestHead,
    looking: &mut Looking<'_>,
) -> Result<(), Stop> {
    for name in providers.iter().flat_map(|provider| provider.written_headers()) {
        head.headers.remove(name);
    }
    let mut tokens = places.extract(head);
    let mut last = Ok(());
    while let Some(carried) = tokens.pop() {
        let verified = Token::parse(&carried.token).map_err(Stop::from).and_then(|token| {
            let of = |issuer: &str| providers.iter().find(|provider| provider.issuer == issuer);
            let provider = of(&token.issuer).or_else(|| of("")).ok_or(Failure::UnknownIssuer)?;
            provider.check(&token, &carried, None, looking.now)?;
            looking.verify(provider, &token)?;
            Ok((provider, token))
        });
        match verified {
            Ok((provider, token)) => provider.accept(token, &carried, head, &mut looking.said),
            Err(Stop::Fetch(keys)) => return Err(Stop::Fetch(keys)),
            Err(stop) => last = last.and(Err(stop)),
        }
    }
    if bad_is_fine { Ok(()) } else { last }
}

/// Tells those behind why, where they are to know.
fn note(provider: &Provider, stop: Stop, looking: &mut Looking<'_>) -> Stop {
    if let Stop::Failed(failure) = &stop
        && *failure != Failure::Missing
        && !provider.failure_in_metadata.is_empty()
    {
        let fields = Fields::from([
            ("code".to_owned(), Value::Number(failure.code().into())),
            ("message".to_owned(), Value::String(failure.message().to_owned())),
        ]);
        looking.said.metadata.insert(provider.failure_in_metadata.clone(), Value::Struct(fields));
    }
    stop
}
