#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lateen_intercept::dns::fuzz::dns(data));
