#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lateen_tests::fuzz::json_web_token(data));
