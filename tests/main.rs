//! All integration tests in one binary.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod cli;
mod closed_form;
mod devices;
mod golden;
mod laws;
mod reference;
