//! nf_tables rule sets as values: tables, chains, sets and rules, applied over netlink as one transaction.
//!
//! No `nft` or `iptables` program is involved. The values know only what our rules need; numbers and layouts are those of
//! the kernel's `linux/netfilter/nf_tables.h`.

mod encode;
mod expression;
#[cfg(test)]
mod tests;

use crate::netlink::{Attributes, Error, Protocol, Socket};

pub use expression::{Compare, Expression, Field, Key, Map, Rule, Verdict};

/// Address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    Ip,
    Ip6,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::Ip => libc::NFPROTO_IPV4 as u8,
            Self::Ip6 => libc::NFPROTO_IPV6 as u8,
        }
    }
}

/// Where a base chain sits in the path of a packet, with the priority that Netfilter's own stages have
/// (destination NAT -100, source NAT 100).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Rewrites the destination of what arrives.
    NatPrerouting,
    /// Rewrites the destination of what is sent from here.
    NatOutput,
    /// Rewrites the source of what leaves.
    NatPostrouting,
    /// Judges what arrives, after its destination was rewritten.
    FilterPrerouting,
    /// Judges what is sent from here, after its destination was rewritten.
    FilterOutput,
}

/// A chain: rules in order. Without a hook it is reached by `jump` and `goto` only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

/// A set of keys, or a map from keys to data or verdicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    /// Bytes of a key: the sum of its fields, each rounded up to 4.
    pub key_length: usize,
    pub content: SetContent,
}

/// What a set holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetContent {
    Keys(Vec<Vec<u8>>),
    /// Key to data, each datum of this many bytes.
    Data(usize, Vec<(Vec<u8>, Vec<u8>)>),
    Verdicts(Vec<(Vec<u8>, Verdict)>),
}

/// A table with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub family: Family,
    pub name: String,
    /// At most 256 bytes kept with the table; we put a digest of the content there.
    pub note: Vec<u8>,
    pub sets: Vec<Set>,
    pub chains: Vec<Chain>,
}

impl Table {
    /// Puts this table, exactly as it is, in the place of whatever has its name; nothing in between is ever in force.
    pub fn replace(&self) -> Result<(), Error> {
        let (begin, messages, end) = encode::replace(self);
        Socket::open(Protocol::Netfilter)?.transaction(begin, messages, end)
    }
}

/// Removes a table with everything in it; returns whether there was one.
pub fn delete_table(family: Family, name: &str) -> Result<bool, Error> {
    let (begin, messages, end) = encode::delete(family, name);
    match Socket::open(Protocol::Netfilter)?.transaction(begin, messages, end) {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the kernel holds under a table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The note the table was made with.
    pub note: Vec<u8>,
    /// How many rules its chains have.
    pub rules: usize,
}

/// Asks the kernel for a table; `None` when there is none of that name.
pub fn installed(family: Family, name: &str) -> Result<Option<Installed>, Error> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let tables = match socket.query(encode::get_table(family, name), 0) {
        Ok(tables) => tables,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(table) = tables.first() else { return Ok(None) };
    let note = attribute(table, encode::TABLE_NOTE).unwrap_or_default().to_vec();
    let rules = socket.query(encode::list_rules(family, name), libc::NLM_F_DUMP)?;
    let ours = rules.iter().filter(|rule| {
        attribute(rule, encode::RULE_TABLE).is_some_and(|value| value.strip_suffix(&[0]) == Some(name.as_bytes()))
    });
    Ok(Some(Installed { note, rules: ours.count() }))
}

/// An attribute of an nf_tables answer, which starts with the 4 bytes of `struct nfgenmsg`.
fn attribute(body: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes(body.get(4..)?).find(|(found, _)| *found == kind).map(|(_, value)| value)
}
