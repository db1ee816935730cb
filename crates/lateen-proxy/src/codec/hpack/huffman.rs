//! The Huffman code of HPACK (RFC 7541 appendix B), for reading only: what we write is not packed, which costs a few bytes
//! and saves both ends the work.
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, so that the lengths say all.

/// Bits in the code of each byte, and of the end of the string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, //
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, //
    6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, //
    6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, //
    20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, //
    22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, //
    23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, //
    25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const LONGEST: usize = 30;
const END: u16 = 256;

/// For each length: the first code of it, how many there are, and where their symbols begin in `SYMBOLS`.
struct Lengths {
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    place: [u32; LONGEST + 1],
}

const BY_LENGTH: Lengths = by_length();

/// Symbols in the order of their codes.
static SYMBOLS: [u16; 257] = symbols();

/// What the next eight bits begin with, if that is a whole code: its symbol and its length; length 0 if it is longer.
static SHORT: [(u8, u8); 256] = short();

const fn by_length() -> Lengths {
    let mut lengths = Lengths { first: [0; LONGEST + 1], count: [0; LONGEST + 1], place: [0; LONGEST + 1] };
    let mut symbol = 0;
    while symbol < LENGTHS.len() {
        lengths.count[LENGTHS[symbol] as usize] += 1;
        symbol += 1;
    }
    let (mut length, mut code, mut place) = (1, 0, 0);
    while length <= LONGEST {
        lengths.first[length] = code;
        lengths.place[length] = place;
        code = (code + lengths.count[length]) << 1;
        place += lengths.count[length];
        length += 1;
    }
    lengths
}

const fn symbols() -> [u16; 257] {
    let mut symbols = [0; 257];
    let (mut length, mut place) = (1, 0);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                symbols[place] = symbol as u16;
                place += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    symbols
}

const fn short() -> [(u8, u8); 256] {
    let mut short = [(0, 0); 256];
    let symbols = symbols();
    let mut length = 5;
    while length <= 8 {
        let mut number = 0;
        while number < BY_LENGTH.count[length] {
            let code = BY_LENGTH.first[length] + number;
            let symbol = symbols[(BY_LENGTH.place[length] + number) as usize];
            let spare = 8 - length;
            let mut rest = 0;
            while rest < 1 << spare {
                short[((code as usize) << spare) | rest] = (symbol as u8, length as u8);
                rest += 1;
            }
            number += 1;
        }
        length += 1;
    }
    short
}

/// It does not follow the code, or is not padded as section 5.2 asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadCode;

/// Unpacks a string onto the end of `out`.
///
/// # Errors
/// It is not packed right.
pub(super) fn unpack(packed: &[u8], out: &mut Vec<u8>) -> Result<(), BadCode> {
    // The next bits are the highest of `bits`, of which `held` are there.
    let (mut bits, mut held, mut rest) = (0_u64, 0_u32, packed);
    loop {
        while held <= 56 && !rest.is_empty() {
            bits |= u64::from(rest[0]) << (56 - held);
            rest = &rest[1..];
            held += 8;
        }
        let (symbol, length) = SHORT[(bits >> 56) as usize];
        let length = u32::from(length);
        if length != 0 && length <= held {
            out.push(symbol);
            bits <<= length;
            held -= length;
            continue;
        }
        match long(bits, held) {
            Some((END, _)) => return Err(BadCode),
            Some((symbol, length)) => {
                out.push(symbol.to_be_bytes()[1]);
                bits <<= length;
                held -= length;
            }
            // Fewer than eight bits are left, all ones.
            None if held < 8 && bits == !(u64::MAX.checked_shr(held).unwrap_or(0)) => return Ok(()),
            None => return Err(BadCode),
        }
    }
}

/// The code of more than eight bits that the bits begin with; none if they end before it does.
fn long(bits: u64, held: u32) -> Option<(u16, u32)> {
    (9..=LONGEST).take_while(|length| *length <= held as usize).find_map(|length| {
        let code = (bits >> (64 - length)) as u32;
        let number = code.checked_sub(BY_LENGTH.first[length]).filter(|number| *number < BY_LENGTH.count[length])?;
        Some((SYMBOLS[(BY_LENGTH.place[length] + number) as usize], length as u32))
    })
}

#[cfg(any(test, feature = "fuzz"))]
pub(super) fn pack(text: &[u8]) -> Vec<u8> {
    let (mut out, mut bits, mut held) = (Vec::new(), 0_u64, 0);
    for byte in text {
        let length = usize::from(LENGTHS[usize::from(*byte)]);
        let place = SYMBOLS.iter().position(|symbol| *symbol == u16::from(*byte)).expect("each byte has a code");
        let code = BY_LENGTH.first[length] + (place as u32 - BY_LENGTH.place[length]);
        bits = (bits << length) | u64::from(code);
        held += length;
        while held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    if held > 0 {
        out.push(((bits << (8 - held)) as u8) | (0xff >> held));
    }
    out
}
