//! Which endpoints are taken out, and when they come back.
