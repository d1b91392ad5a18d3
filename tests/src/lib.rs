//! The whole mesh over real sockets: what no crate can prove alone.
//!
//! One test binary; every test binds port 0 on loopback and mints its own authority.
#![cfg(any(test, doctest))]

/// The README's examples compile, and those that can run do.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod bypass;
#[cfg(test)]
mod cancelled;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod kit;
#[cfg(test)]
#[path = "../dos/memory.rs"]
#[allow(dead_code, reason = "the program uses all of it")]
mod memory;
#[cfg(test)]
mod otlp;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod recheck;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod require;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod rotation;
#[cfg(test)]
mod security;
#[cfg(test)]
mod smuggling;
#[cfg(test)]
mod spellings;
#[cfg(test)]
mod traffic;
#[cfg(test)]
mod validate;
#[cfg(test)]
mod wiring;
