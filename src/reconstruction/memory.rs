//! How much memory a run takes, predicted from the sizes of its images.

/// Images that each chain holds: its state, and what a step makes of it on the way.
const CHAIN: usize = 12;
/// Images that each thread adds, which works on one chain at a time: conjugate gradients, transforms, tiles.
const THREAD: usize = 8;
/// Copies of each draw: as it was kept, put together, and shown.
const DRAW: usize = 3;
/// Bytes that do not depend on the images: program, network, figures.
const FIXED: usize = 580 << 20;

/// Bytes that a run takes at most, with so many draws kept of all chains together.
pub(super) fn predicted(voxels: usize, chains: usize, draws: usize, threads: usize) -> usize {
    let images = CHAIN * chains + THREAD * threads.min(chains) + DRAW * draws;
    images.saturating_mul(voxels).saturating_mul(size_of::<f32>()).saturating_add(FIXED)
}
