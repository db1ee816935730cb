#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lateen_tests::fuzz::resources(data));
