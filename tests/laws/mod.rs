//! Laws that every implementation of a trait must obey.

mod run_loop;
