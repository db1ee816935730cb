//! Messages byte by byte, where a mistake would be accepted by the kernel and mean something else.

use std::net::Ipv4Addr;

use super::encode;
use super::*;
use crate::netlink::Message;

/// The attributes of a message, nested ones in brackets, values in hex.
fn describe(message: Message) -> String {
    fn walk(bytes: &[u8], nested: &dyn Fn(&[u8]) -> bool, out: &mut String) {
        for (kind, value) in Attributes(bytes) {
            out.push_str(&format!("{kind}:"));
            if nested(value) {
                out.push('[');
                walk(value, nested, out);
                out.push_str("] ");
            } else {
                out.push_str(&value.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
                out.push(' ');
            }
        }
    }
    let is_nest = |value: &[u8]| {
        let mut rest = value;
        let mut any = false;
        while rest.len() >= 4 {
            let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
            if length < 4 || length > rest.len() || rest[2] > 12 || rest[3] & 0x7f != 0 {
                return false;
            }
            any = true;
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        any && rest.is_empty()
    };
    let mut out = String::new();
    walk(&message.finish(1)[20..], &is_nest, &mut out);
    out
}

fn table(rule: Rule) -> Table {
    let chain = Chain { name: "c".to_owned(), hook: Some(Hook::NatOutput), rules: vec![rule] };
    Table { family: Family::Ip, name: "t".to_owned(), note: b"note".to_vec(), sets: Vec::new(), chains: vec![chain] }
}

fn last_message(table: &Table) -> String {
    let (_, mut messages, _) = encode::replace(table);
    describe(messages.pop().expect("a table has messages"))
}

#[test]
fn a_table_is_made_deleted_and_made_again_in_one_transaction() {
    let (begin, messages, end) = encode::replace(&table(Rule::new()));
    let kinds: Vec<u16> = std::iter::once(begin)
        .chain(messages)
        .chain([end])
        .map(|message| {
            let bytes = message.finish(0);
            u16::from_ne_bytes([bytes[4], bytes[5]])
        })
        .collect();
    assert_eq!(kinds, [0x10, 0xa00, 0xa02, 0xa00, 0xa03, 0xa06, 0x11]);
}

#[test]
fn a_base_chain_names_its_hook_priority_type_and_policy() {
    let (_, messages, _) = encode::replace(&table(Rule::new()));
    let chain = describe(messages[3].clone());
    assert_eq!(chain, "1:7400 3:6300 4:[1:00000003 2:ffffff9c ] 5:00000001 7:6e617400 ");
}

#[test]
fn a_net_is_masked_and_compared() {
    let rule = Rule::new().to_net("10.1.0.0/16".parse().unwrap()).returns();
    let told = last_message(&table(rule));
    assert!(told.contains("2:[1:00000008 2:00000001 3:00000010 4:00000004 ]"), "payload: {told}");
    assert!(told.contains("4:[1:ffff0000 ] 5:[1:00000000 ]"), "bitwise: {told}");
    assert!(told.contains("2:00000000 3:[1:0a010000 ]"), "cmp: {told}");
    assert!(told.contains("2:[1:00000000 2:[2:[1:fffffffb ] ] ]"), "verdict: {told}");
}

#[test]
fn a_single_address_needs_no_mask_and_everything_needs_no_match() {
    let one = last_message(&table(Rule::new().from_net("127.0.0.6/32".parse().unwrap()).returns()));
    assert!(one.contains("3:[1:7f000006 ]") && !one.contains("bitwise") && !one.contains("62697477697365"), "{one}");
    assert_eq!(Rule::new().to_net("0.0.0.0/0".parse().unwrap()), Rule::new());
}

#[test]
fn marks_are_in_the_machines_byte_order_and_ports_in_the_networks() {
    let told = last_message(&table(Rule::new().marked(1337).tcp().to_port(15008).redirect(15006)));
    assert!(told.contains("3:[1:39050000 ]"), "mark: {told}");
    assert!(told.contains("3:[1:3aa0 ]"), "port matched: {told}");
    assert!(told.contains("1:00000008 2:[1:3a9e ]"), "port loaded: {told}");
    assert!(told.contains("[1:00000008 2:00000008 3:00000002 ]"), "redir: {told}");
}

#[test]
fn a_long_list_of_elements_is_cut_into_messages() {
    let pairs = (0..1000u32).map(|index| (index.to_ne_bytes().to_vec(), vec![0; 8])).collect();
    let set = Set { name: "s".to_owned(), key_length: 4, content: SetContent::Data(8, pairs) };
    let table = Table {
        family: Family::Ip,
        name: "t".to_owned(),
        note: Vec::new(),
        sets: vec![set],
        chains: vec![Chain {
            name: "c".to_owned(),
            hook: None,
            rules: vec![Rule::new().destination(Ipv4Addr::LOCALHOST, 1)],
        }],
    };
    let (_, messages, _) = encode::replace(&table);
    assert_eq!(messages.len(), 3 + 1 + 1 + 3 + 1);
}
