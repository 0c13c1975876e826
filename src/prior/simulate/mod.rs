//! Simulators of training images: what each prior believes, written as a distribution that can be drawn from.

pub mod blackhole;
