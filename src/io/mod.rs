//! File formats to plain structs of f64 and back; no tensors.
