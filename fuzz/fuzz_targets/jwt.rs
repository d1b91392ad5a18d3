#![no_main]

#[path = "../src/jwt.rs"]
mod jwt;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    jwt::run(data);
});
