//! The strict parser that stands before any cryptography. (security.md 2, rows 5-9)
