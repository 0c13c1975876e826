//! All integration tests in one binary.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli;
mod closed_form;
mod devices;
mod golden;
mod laws;
mod reference;
