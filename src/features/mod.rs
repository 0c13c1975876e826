//! Numbers that scientists read off images, each with its posterior.
