//! What must hold of header blocks, whatever is in them.

use super::{Decoder, TABLE_SIZE, huffman};
use crate::fuzz::Input;

/// Blocks one after the other, each behind its length in a byte: how much they unfold to is told truly, and nothing depends on
/// anything but the blocks before. What Huffman's code packs, it unpacks.
pub fn hpack(data: &[u8]) {
    let (mut one, mut other, mut input) = (Decoder::new(), Decoder::new(), Input(data));
    while !input.is_empty() {
        let length = usize::from(input.byte()) * 2;
        let block = input.take(length);
        let (mut sizes, mut again) = (Vec::new(), Vec::new());
        let result = one.decode(block, |_, size| sizes.push(size));
        let repeated = other.decode(block, |_, size| again.push(size));
        assert_eq!((result.is_ok(), &sizes), (repeated.is_ok(), &again));
        // A field in a block is at least a byte, and none is larger than the table or the block.
        assert!(sizes.len() <= block.len());
        assert!(sizes.iter().all(|size| *size <= TABLE_SIZE + block.len() * 2 + 128));
        if result.is_err() {
            break;
        }
    }
    let mut unpacked = Vec::new();
    huffman::unpack(&huffman::pack(data), &mut unpacked).expect("it was packed here");
    assert_eq!(unpacked, data);
    unpacked.clear();
    if huffman::unpack(data, &mut unpacked).is_ok() {
        assert!(unpacked.len() <= data.len() * 2);
    }
}
