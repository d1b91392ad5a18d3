#![no_main]

#[path = "../src/spiffe_id.rs"]
mod spiffe_id;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    spiffe_id::run(data);
});
