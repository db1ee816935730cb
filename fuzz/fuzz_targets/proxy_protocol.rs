#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lateen_proxy::fuzz::proxy_protocol(data));
