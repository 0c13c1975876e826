//! Publication figures.
