//! Headers, help texts and malformed files.
