//! The examples of RFC 7541 appendix C, what must be refused, and both halves against each other.

use http::{HeaderName, HeaderValue, Method};

use super::decode::Broken;
use super::{Decoder, Encoder, Field, Keep, huffman};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal digits"))
        .collect()
}

fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Field>, Broken> {
    let mut fields = Vec::new();
    decoder.decode(block, |field, _| fields.push(field)).map(|()| fields)
}

fn plain(name: &'static str, value: &str) -> Field {
    Field::Plain(HeaderName::from_static(name), HeaderValue::from_str(value).expect("it is a value"))
}

fn request(scheme: &'static str, path: &'static str, more: Vec<Field>) -> Vec<Field> {
    let authority = Field::Authority("www.example.com".into());
    let mut fields =
        vec![Field::Method(Method::GET), Field::Scheme(scheme.into()), Field::Path(path.into()), authority];
    fields.extend(more);
    fields
}

#[test]
fn requests_as_the_rfc_writes_them() {
    let unpacked = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let packed = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [unpacked, packed] {
        let mut decoder = Decoder::new();
        let mut next = |block: &str| read(&mut decoder, &bytes(block)).expect("it is right");
        assert_eq!(next(blocks[0]), request("http", "/", vec![]));
        assert_eq!(next(blocks[1]), request("http", "/", vec![plain("cache-control", "no-cache")]));
        let custom = plain("custom-key", "custom-value");
        assert_eq!(next(blocks[2]), request("https", "/index.html", vec![custom]));
    }
}

#[test]
fn blocks_that_cannot_be_read() {
    let broken = [
        ("index 0", "80"),
        ("an index behind the table", "be"),
        ("a name behind the table", "7e 01 61"),
        ("a size above ours", "3f e2 1f"),
        ("a size behind a field", "82 20"),
        ("half an integer", "ff"),
        ("an integer without an end", "ff 80 80 80 80 80 80 80 80 80 01"),
        ("a string that is cut", "40 05 61"),
        ("padding of eight bits", "41 82 1f ff"),
        ("padding of zeros", "41 81 18"),
        ("the end of the string inside", "41 84 ff ff ff fc"),
    ];
    for (what, block) in broken {
        assert_eq!(read(&mut Decoder::new(), &bytes(block)), Err(Broken), "{what}");
    }
}

#[test]
fn a_bad_field_spoils_its_message_and_not_the_table() {
    let mut decoder = Decoder::new();
    let mut block = bytes("40 03");
    block.extend_from_slice(b"bad\x02a\n");
    block.extend_from_slice(&bytes("40 03"));
    block.extend_from_slice(b"Bad\x01a");
    let fields = read(&mut decoder, &block).expect("it is right");
    assert!(fields.iter().all(|field| matches!(field, Field::Malformed(_))), "{fields:?}");
    // The name of the first is good.
    assert_eq!(read(&mut decoder, &bytes("7f 00 01 62")), Ok(vec![plain("bad", "b")]));
}

#[test]
fn every_byte_is_packed_and_unpacked() {
    let all: Vec<u8> = (0..=255).collect();
    for text in all.chunks(1).chain([&all[..], &all[200..], b"", b"www.example.com"]) {
        let mut out = Vec::new();
        huffman::unpack(&huffman::pack(text), &mut out).expect("it is right");
        assert_eq!(out, text);
    }
}

/// A stream of numbers that is the same each time.
fn numbers() -> impl FnMut(usize) -> usize {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("it is small")
    }
}

#[test]
fn what_is_written_is_read_the_same_while_tables_change() {
    let (mut encoder, mut decoder, mut number) = (Encoder::new(), Decoder::new(), numbers());
    let names = ["x-a", "x-request-id", "content-type", "date", "grpc-status", "authorization", "x-long"];
    for _ in 0..5_000 {
        if number(50) == 0 {
            encoder.resize([0, 64, 200, 4096, 1 << 20][number(5)]);
            encoder.resize([100, 4096][number(2)]);
        }
        let mut block = Vec::new();
        encoder.begin(&mut block);
        let mut fields = Vec::new();
        for _ in 0..number(12) {
            let name = names[number(names.len())];
            let value = match number(4) {
                0 => "same".to_owned(),
                1 => number(1_000_000).to_string(),
                2 => number(20).to_string(),
                _ => "v".repeat(number(700)),
            };
            let keep = if name == "authorization" { Keep::Never } else { Keep::Yes };
            encoder.field(&mut block, name, value.as_bytes(), keep);
            fields.push(plain(name, &value));
        }
        assert_eq!(read(&mut decoder, &block), Ok(fields));
    }
}

#[test]
fn what_comes_again_is_one_byte_and_what_differs_pushes_nothing_out() {
    let mut encoder = Encoder::new();
    let mut block = |id: usize| {
        let mut block = Vec::new();
        encoder.begin(&mut block);
        encoder.field(&mut block, "x-team", b"reviews", Keep::Yes);
        encoder.field(&mut block, "x-request-id", format!("{id:036}").as_bytes(), Keep::Yes);
        block
    };
    block(0);
    block(1);
    for id in 2..1_000 {
        assert_eq!(block(id).len(), 1 + 2 + 1 + 36, "an index; and a name's index, a length and the text");
    }
}

#[test]
fn secrets_are_marked_and_never_kept() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    for _ in 0..3 {
        let mut block = Vec::new();
        encoder.begin(&mut block);
        encoder.field(&mut block, "authorization", b"secret", Keep::Never);
        assert_eq!(block[0] & 0xf0, 0x10);
        let fields = read(&mut decoder, &block).expect("it is right");
        assert!(matches!(&fields[..], [Field::Plain(_, value)] if value.is_sensitive()));
    }
}
