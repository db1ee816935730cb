//! Rule sets to netlink messages.

use crate::netlink::Message;

use super::expression::{Compare, Expression, Field, Map, Rule, Verdict};
use super::{Chain, Family, Hook, Set, SetContent, Table};

pub(super) const TABLE_NOTE: u16 = 6;
pub(super) const RULE_TABLE: u16 = 1;

/// Elements per message; keeps the attribute that holds them well under 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// The first 4-byte register; keys and data of several fields use those that follow it.
const FIRST: u32 = 8;
/// The register that a verdict is put into.
const VERDICT: u32 = 0;

/// `linux/netfilter/nf_nat.h`: the address is given.
const NF_NAT_RANGE_MAP_IPS: u32 = 1;
/// `linux/netfilter/nf_nat.h`: the port is given.
const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 2;

/// Messages of one transaction: begin, content, end.
pub(super) type Transaction = (Message, Vec<Message>, Message);

/// Making a table before deleting it lets the deletion succeed where there was none.
pub(super) fn replace(table: &Table) -> Transaction {
    let (family, name) = (table.family, table.name.as_str());
    let bare = |doing| {
        let mut message = start(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, family, doing);
        message.put_str(1, name);
        message.put_be32(2, 0);
        message
    };
    let mut messages = vec![bare(format!("prepare table {name}")), delete_message(family, name), {
        let mut message = bare(format!("create table {name}"));
        message.put(TABLE_NOTE, &table.note);
        message
    }];
    messages.extend(table.chains.iter().map(|made| chain(family, name, made)));
    for (index, made) in table.sets.iter().enumerate() {
        messages.push(set(family, name, made, index as u32 + 1));
        messages.extend(elements(family, name, made, index as u32 + 1));
    }
    for chain in &table.chains {
        messages.extend(chain.rules.iter().map(|made| rule(family, name, &chain.name, made)));
    }
    (batch(libc::NFNL_MSG_BATCH_BEGIN, "begin"), messages, batch(libc::NFNL_MSG_BATCH_END, "end"))
}

pub(super) fn delete(family: Family, name: &str) -> Transaction {
    let messages = vec![delete_message(family, name)];
    (batch(libc::NFNL_MSG_BATCH_BEGIN, "begin"), messages, batch(libc::NFNL_MSG_BATCH_END, "end"))
}

pub(super) fn get_table(family: Family, name: &str) -> Message {
    let mut message = start(libc::NFT_MSG_GETTABLE, 0, family, format!("look up table {name}"));
    message.put_str(1, name);
    message
}

pub(super) fn list_rules(family: Family, name: &str) -> Message {
    let mut message = start(libc::NFT_MSG_GETRULE, 0, family, format!("list the rules of table {name}"));
    message.put_str(RULE_TABLE, name);
    message
}

fn delete_message(family: Family, name: &str) -> Message {
    let mut message = start(libc::NFT_MSG_DELTABLE, 0, family, format!("delete table {name}"));
    message.put_str(1, name);
    message
}

/// `struct nfgenmsg`: family, version 0, and for a batch the subsystem in network byte order.
fn start(kind: i32, flags: i32, family: Family, doing: String) -> Message {
    let kind = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | kind as u16;
    Message::new(kind, flags, doing).fixed(&[family.number(), 0, 0, 0])
}

fn batch(kind: i32, word: &str) -> Message {
    let subsystem = (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes();
    Message::new(kind as u16, 0, format!("{word} the transaction")).fixed(&[0, 0, subsystem[0], subsystem[1]])
}

fn chain(family: Family, table: &str, chain: &Chain) -> Message {
    let doing = format!("create chain {} of table {table}", chain.name);
    let mut message = start(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, family, doing);
    message.put_str(1, table);
    message.put_str(3, &chain.name);
    if let Some(hook) = chain.hook {
        let (number, priority, kind): (i32, i32, &str) = match hook {
            Hook::NatPrerouting => (libc::NF_INET_PRE_ROUTING, -100, "nat"),
            Hook::NatOutput => (libc::NF_INET_LOCAL_OUT, -100, "nat"),
            Hook::NatPostrouting => (libc::NF_INET_POST_ROUTING, 100, "nat"),
            Hook::FilterPrerouting => (libc::NF_INET_PRE_ROUTING, -50, "filter"),
            Hook::FilterOutput => (libc::NF_INET_LOCAL_OUT, -50, "filter"),
        };
        message.nest(4, |inside| {
            inside.put_be32(1, number as u32);
            inside.put_be32(2, priority as u32);
        });
        message.put_be32(5, libc::NF_ACCEPT as u32);
        message.put_str(7, kind);
    }
    message
}

fn set(family: Family, table: &str, set: &Set, id: u32) -> Message {
    let doing = format!("create set {} of table {table}", set.name);
    let mut message = start(libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE, family, doing);
    message.put_str(1, table);
    message.put_str(2, &set.name);
    let is_map = !matches!(set.content, SetContent::Keys(_));
    message.put_be32(3, if is_map { libc::NFT_SET_MAP as u32 } else { 0 });
    // The type of a key is a note for people's tools; 0 says nothing.
    message.put_be32(4, 0);
    message.put_be32(5, set.key_length as u32);
    match &set.content {
        SetContent::Keys(_) => {}
        SetContent::Data(length, _) => {
            message.put_be32(6, 0);
            message.put_be32(7, *length as u32);
        }
        SetContent::Verdicts(_) => message.put_be32(6, libc::NFT_DATA_VERDICT),
    }
    message.put_be32(10, id);
    message
}

fn elements(family: Family, table: &str, set: &Set, id: u32) -> Vec<Message> {
    let count = match &set.content {
        SetContent::Keys(keys) => keys.len(),
        SetContent::Data(_, pairs) => pairs.len(),
        SetContent::Verdicts(pairs) => pairs.len(),
    };
    let mut messages = Vec::new();
    for from in (0..count).step_by(ELEMENTS_PER_MESSAGE) {
        let doing = format!("fill set {} of table {table}", set.name);
        let mut message = start(libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE, family, doing);
        message.put_str(1, table);
        message.put_str(2, &set.name);
        message.nest(3, |list| {
            for index in from..count.min(from + ELEMENTS_PER_MESSAGE) {
                list.nest(1, |element| put_element(element, &set.content, index));
            }
        });
        message.put_be32(4, id);
        messages.push(message);
    }
    messages
}

fn put_element(message: &mut Message, content: &SetContent, index: usize) {
    match content {
        SetContent::Keys(keys) => put_value(message, 1, &keys[index]),
        SetContent::Data(_, pairs) => {
            put_value(message, 1, &pairs[index].0);
            put_value(message, 2, &pairs[index].1);
        }
        SetContent::Verdicts(pairs) => {
            put_value(message, 1, &pairs[index].0);
            put_verdict(message, 2, &pairs[index].1);
        }
    }
}

fn rule(family: Family, table: &str, chain: &str, rule: &Rule) -> Message {
    let doing = format!("add a rule to chain {chain} of table {table}");
    let mut message = start(libc::NFT_MSG_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, family, doing);
    message.put_str(RULE_TABLE, table);
    message.put_str(2, chain);
    message.nest(4, |list| {
        for expression in &rule.0 {
            put_expression(list, family, expression);
        }
    });
    message
}

fn put_expression(list: &mut Message, family: Family, expression: &Expression) {
    match expression {
        Expression::Match { field, mask, compare, value } => {
            load(list, *field, FIRST);
            if let Some(mask) = mask {
                put(list, "bitwise", |data| {
                    data.put_be32(1, FIRST);
                    data.put_be32(2, FIRST);
                    data.put_be32(3, mask.len() as u32);
                    put_value(data, 4, mask);
                    put_value(data, 5, &vec![0; mask.len()]);
                });
            }
            put(list, "cmp", |data| {
                data.put_be32(1, FIRST);
                data.put_be32(2, matches!(compare, Compare::NotEqual).into());
                put_value(data, 3, value);
            });
        }
        Expression::In { key, set } => look_up(list, key, set, None),
        Expression::VerdictMap { key, set } => look_up(list, key, set, Some(VERDICT)),
        Expression::Counter => put(list, "counter", |_| {}),
        Expression::Redirect { port } => {
            immediate(list, FIRST, &port.to_be_bytes());
            put(list, "redir", |data| {
                data.put_be32(1, FIRST);
                data.put_be32(2, FIRST);
                data.put_be32(3, NF_NAT_RANGE_PROTO_SPECIFIED);
            });
        }
        Expression::DestinationFrom(Map { set, modulus }) => {
            put(list, "numgen", |data| {
                data.put_be32(1, FIRST);
                data.put_be32(2, *modulus);
                data.put_be32(3, libc::NFT_NG_RANDOM as u32);
                data.put_be32(4, 0);
            });
            put_lookup(list, set, FIRST, Some(FIRST));
            nat(list, family, libc::NFT_NAT_DNAT, Some(FIRST + 1));
        }
        Expression::Destination { address, port } => {
            immediate(list, FIRST, &address.octets());
            immediate(list, FIRST + 1, &port.to_be_bytes());
            nat(list, family, libc::NFT_NAT_DNAT, Some(FIRST + 1));
        }
        Expression::Source(address) => {
            immediate(list, FIRST, &address.octets());
            nat(list, family, libc::NFT_NAT_SNAT, None);
        }
        Expression::Refuse { tcp } => put(list, "reject", |data| {
            data.put_be32(1, if *tcp { libc::NFT_REJECT_TCP_RST } else { libc::NFT_REJECT_ICMP_UNREACH } as u32);
            data.put(2, &[if *tcp { 0 } else { port_unreachable(family) }]);
        }),
        Expression::Verdict(verdict) => put(list, "immediate", |data| {
            data.put_be32(1, VERDICT);
            put_verdict(data, 2, verdict);
        }),
    }
}

fn put(list: &mut Message, name: &str, data: impl FnOnce(&mut Message)) {
    list.nest(1, |element| {
        element.put_str(1, name);
        element.nest(2, data);
    });
}

/// Loads a field into a register, and into the ones that follow it as far as it is long.
fn load(list: &mut Message, field: Field, register: u32) {
    const NETWORK: i32 = libc::NFT_PAYLOAD_NETWORK_HEADER;
    const TRANSPORT: i32 = libc::NFT_PAYLOAD_TRANSPORT_HEADER;
    let packet = |list: &mut Message, header: i32, offset: u32, length: u32| {
        put(list, "payload", |data| {
            data.put_be32(1, register);
            data.put_be32(2, header as u32);
            data.put_be32(3, offset);
            data.put_be32(4, length);
        });
    };
    let meta = |list: &mut Message, key: i32| {
        put(list, "meta", |data| {
            data.put_be32(1, register);
            data.put_be32(2, key as u32);
        });
    };
    match field {
        Field::Ip4Source => packet(list, NETWORK, 12, 4),
        Field::Ip4Destination => packet(list, NETWORK, 16, 4),
        Field::Ip6Source => packet(list, NETWORK, 8, 16),
        Field::Ip6Destination => packet(list, NETWORK, 24, 16),
        Field::DestinationPort => packet(list, TRANSPORT, 2, 2),
        Field::TransportProtocol => meta(list, libc::NFT_META_L4PROTO),
        Field::Mark => meta(list, libc::NFT_META_MARK),
        Field::SocketUid => meta(list, libc::NFT_META_SKUID),
        Field::SocketGid => meta(list, libc::NFT_META_SKGID),
        Field::InputInterface => meta(list, libc::NFT_META_IIFNAME),
        Field::OutputInterface => meta(list, libc::NFT_META_OIFNAME),
    }
}

fn look_up(list: &mut Message, key: &[Field], set: &str, into: Option<u32>) {
    let mut register = FIRST;
    for field in key {
        load(list, *field, register);
        register += match field {
            Field::Ip6Source | Field::Ip6Destination | Field::InputInterface | Field::OutputInterface => 4,
            _ => 1,
        };
    }
    put_lookup(list, set, FIRST, into);
}

fn put_lookup(list: &mut Message, set: &str, from: u32, into: Option<u32>) {
    put(list, "lookup", |data| {
        data.put_str(1, set);
        data.put_be32(2, from);
        if let Some(register) = into {
            data.put_be32(3, register);
        }
    });
}

fn immediate(list: &mut Message, register: u32, value: &[u8]) {
    put(list, "immediate", |data| {
        data.put_be32(1, register);
        put_value(data, 2, value);
    });
}

/// The address is taken from the first register.
fn nat(list: &mut Message, family: Family, kind: i32, port: Option<u32>) {
    let mut flags = NF_NAT_RANGE_MAP_IPS;
    if port.is_some() {
        flags |= NF_NAT_RANGE_PROTO_SPECIFIED;
    }
    put(list, "nat", |data| {
        data.put_be32(1, kind as u32);
        data.put_be32(2, family.number().into());
        data.put_be32(3, FIRST);
        data.put_be32(4, FIRST);
        if let Some(register) = port {
            data.put_be32(5, register);
            data.put_be32(6, register);
        }
        data.put_be32(7, flags);
    });
}

/// The code that RFC 792 (destination unreachable) and RFC 4443 section 3.1 give to a port nobody listens on.
fn port_unreachable(family: Family) -> u8 {
    match family {
        Family::Ip => 3,
        Family::Ip6 => 4,
    }
}

fn put_value(message: &mut Message, kind: u16, value: &[u8]) {
    message.nest(kind, |data| data.put(1, value));
}

fn put_verdict(message: &mut Message, kind: u16, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (libc::NF_ACCEPT, None),
        Verdict::Drop => (libc::NF_DROP, None),
        Verdict::Return => (libc::NFT_RETURN, None),
        Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
        Verdict::Goto(chain) => (libc::NFT_GOTO, Some(chain)),
    };
    message.nest(kind, |data| {
        data.nest(2, |verdict| {
            verdict.put_be32(1, code as u32);
            if let Some(chain) = chain {
                verdict.put_str(2, chain);
            }
        });
    });
}
