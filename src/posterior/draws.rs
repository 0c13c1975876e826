//! Draws of several chains, which need not be equally many, and of several runs.

use std::path::Path;

use candle_core::{Device, Tensor};

use crate::{Error, Result, io::atomic, posterior::solver::TensorMap, transfer::Transfer};

/// Posterior draws, ordered by chain and within a chain by time.
#[derive(Debug, Clone)]
pub struct Draws {
    /// Images `[S, Z, Y, X]`.
    pub images: Tensor,
    /// Chain of each draw.
    pub chain: Vec<usize>,
    /// When each was made: draws of different chains that are made together share a time.
    pub time: Vec<usize>,
    /// Run of each draw, where several runs were joined.
    pub run: Vec<usize>,
}

/// Names of a checkpoint's images and of their chains, times and runs.
const NAMES: [&str; 2] = ["draws", "drawn"];
/// Under which name a file holds the draws of joined runs.
const JOINED: &str = "joined";

impl Draws {
    /// One draw `[K, Z, Y, X]` of each of the chains, made at `time`.
    pub fn together(images: Tensor, chains: &[usize], time: usize) -> Self {
        let all = |value| vec![value; chains.len()];
        Self { images, chain: chains.to_vec(), time: all(time), run: all(0) }
    }

    /// All of several sets of draws.
    ///
    /// # Errors
    /// There are none, or images of different shapes.
    pub fn all(sets: &[Self]) -> Result<Self> {
        if sets.is_empty() {
            return Err(Error::config(
                "solver",
                "has no draws before its burn-in ends; let it run to the end",
            ));
        }
        let images: Vec<&Tensor> = sets.iter().map(|set| &set.images).collect();
        let labels = |of: fn(&Self) -> &Vec<usize>| sets.iter().flat_map(of).copied().collect();
        let joint = Self {
            images: Tensor::cat(&images, 0)?,
            chain: labels(|set| &set.chain),
            time: labels(|set| &set.time),
            run: labels(|set| &set.run),
        };
        let mut order: Vec<usize> = (0..joint.len()).collect();
        order.sort_by_key(|&i| (joint.chain[i], joint.time[i]));
        joint.select(&order)
    }

    /// The draws of independent runs of one problem: no chain and no time of one run is that of another.
    ///
    /// # Errors
    /// There are none, or images of different shapes.
    pub fn of_runs(mut runs: Vec<Self>) -> Result<Self> {
        let mut next = [0; 3];
        for draws in &mut runs {
            for (labels, next) in
                [&mut draws.chain, &mut draws.time, &mut draws.run].into_iter().zip(&mut next)
            {
                let first = *next;
                for label in labels {
                    *label += first;
                    *next = (*next).max(*label + 1);
                }
            }
        }
        Self::all(&runs)
    }

    /// Number of draws.
    pub fn len(&self) -> usize {
        self.chain.len()
    }

    /// True if there is no draw.
    pub fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }

    /// Number of chains that made a draw.
    pub fn chains(&self) -> usize {
        grouped(&self.chain, &self.chain).len()
    }

    /// At most `count` of the draws, of each chain in proportion, as evenly spaced as they come.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn thinned(&self, count: usize) -> Result<Self> {
        let kept = count.clamp(1, self.len().max(1));
        let index: Vec<usize> = (0..kept).map(|i| (i + 1) * self.len() / kept - 1).collect();
        self.select(&index)
    }

    /// The draws that were made last, together.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn latest(&self) -> Result<Self> {
        let last = self.time.iter().max();
        let index: Vec<usize> = (0..self.len()).filter(|&i| Some(&self.time[i]) == last).collect();
        self.select(&index)
    }

    /// `values` `[S]` chain by chain.
    pub fn by_chain<T: Copy>(&self, values: &[T]) -> Vec<Vec<T>> {
        grouped(&self.chain, values)
    }

    /// `values` `[S]` time by time.
    pub fn by_time<T: Copy>(&self, values: &[T]) -> Vec<Vec<T>> {
        grouped(&self.time, values)
    }

    /// `values` `[S]` run by run.
    pub fn by_run<T: Copy>(&self, values: &[T]) -> Vec<Vec<T>> {
        grouped(&self.run, values)
    }

    /// Writes the draws to a file of their own.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        let mut state = TensorMap::new();
        self.save(JOINED, &mut state)?;
        atomic::replace(file, |temporary| Ok(candle_core::safetensors::save(&state, temporary)?))
    }

    /// Reads what [`Draws::write`] wrote.
    ///
    /// # Errors
    /// Not such a file.
    pub fn read(file: &Path, device: &Device) -> Result<Self> {
        let foreign = || Error::format(file, "draws", "not the draws of merged runs; merge them again");
        let mut state = candle_core::safetensors::load(file, device).map_err(|_| foreign())?;
        Self::load(JOINED, &mut state)?.ok_or_else(foreign)
    }

    /// For a checkpoint of the solver `solver`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub(crate) fn save(&self, solver: &str, state: &mut TensorMap) -> Result<()> {
        let labels = self.chain.iter().chain(&self.time).chain(&self.run);
        let drawn: Vec<i64> = labels.map(|&v| v as i64).collect();
        state.insert(format!("{solver}.{}", NAMES[0]), self.images.clone());
        state.insert(
            format!("{solver}.{}", NAMES[1]),
            Tensor::from_vec(drawn, (3, self.len()), &Device::Cpu)?,
        );
        Ok(())
    }

    /// What [`Draws::save`] left, if anything.
    ///
    /// # Errors
    /// Images without their chains.
    pub(crate) fn load(solver: &str, state: &mut TensorMap) -> Result<Option<Self>> {
        let [images, drawn] = NAMES.map(|name| state.remove(&format!("{solver}.{name}")));
        let (Some(images), Some(drawn)) = (images, drawn) else { return Ok(None) };
        let drawn = drawn.read_rows::<i64>()?;
        let row = |i: usize| drawn[i].iter().map(|v| v.unsigned_abs() as usize).collect::<Vec<_>>();
        if drawn.len() != 3 || drawn[0].len() != images.dim(0)? {
            return Err(Error::config("checkpoint", "its draws are damaged; start again without --resume"));
        }
        Ok(Some(Self { images, chain: row(0), time: row(1), run: row(2) }))
    }

    /// The draws `index`, in this order.
    pub(super) fn select(&self, index: &[usize]) -> Result<Self> {
        let rows: Vec<u32> = index.iter().map(|&i| i as u32).collect();
        let rows = Tensor::new(rows, &Device::Cpu)?.transfer(self.images.device())?;
        Ok(Self {
            images: self.images.index_select(&rows, 0)?,
            chain: index.iter().map(|&i| self.chain[i]).collect(),
            time: index.iter().map(|&i| self.time[i]).collect(),
            run: index.iter().map(|&i| self.run[i]).collect(),
        })
    }
}

/// The values of equal label together, by rising label.
fn grouped<T: Copy>(labels: &[usize], values: &[T]) -> Vec<Vec<T>> {
    let mut groups = std::collections::BTreeMap::<usize, Vec<T>>::new();
    for (label, value) in labels.iter().zip(values) {
        groups.entry(*label).or_default().push(*value);
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Draws {
        let image = |value: f64, count: usize| {
            (Tensor::ones((count, 1, 1, 1), candle_core::DType::F64, &Device::Cpu).unwrap() * value).unwrap()
        };
        let sets = [(1.0, vec![0, 1, 2], 5), (2.0, vec![0, 2], 9), (3.0, vec![0, 1, 2], 13)];
        Draws::all(
            &sets.map(|(value, chains, time)| Draws::together(image(value, chains.len()), &chains, time)),
        )
        .unwrap()
    }

    #[test]
    fn draws_are_sorted_and_grouped() {
        let draws = example();
        assert_eq!(draws.chain, [0, 0, 0, 1, 1, 2, 2, 2]);
        assert_eq!(draws.time, [5, 9, 13, 5, 13, 5, 9, 13]);
        let values: Vec<f64> = draws.images.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(values, [1.0, 2.0, 3.0, 1.0, 3.0, 1.0, 2.0, 3.0]);
        assert_eq!(draws.by_time(&values), [vec![1.0; 3], vec![2.0; 2], vec![3.0; 3]]);
        assert_eq!(draws.by_chain(&values)[1], [1.0, 3.0]);
        assert_eq!((draws.chains(), draws.len()), (3, 8));
        assert!(Draws::all(&[]).is_err());
    }

    #[test]
    fn thinning_keeps_every_chain_in_proportion() {
        let half = example().thinned(4).unwrap();
        assert_eq!((half.chain, half.time), (vec![0, 1, 2, 2], vec![9, 5, 5, 13]));
        assert_eq!(example().thinned(100).unwrap().len(), 8);
    }

    #[test]
    fn runs_that_are_joined_share_neither_chains_nor_times() {
        let joint = Draws::of_runs(vec![example(), example()]).unwrap();
        assert_eq!((joint.chains(), joint.len()), (6, 16));
        assert_eq!(joint.chain[8..], [3, 3, 3, 4, 4, 5, 5, 5]);
        assert_eq!(joint.time[8..], [19, 23, 27, 19, 27, 19, 23, 27]);
        let values: Vec<f64> = joint.images.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(joint.by_run(&values)[0], joint.by_run(&values)[1]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("draws.safetensors");
        joint.write(&file).unwrap();
        let back = Draws::read(&file, &Device::Cpu).unwrap();
        assert_eq!((back.chain, back.time, back.run), (joint.chain, joint.time, joint.run));
        std::fs::write(&file, b"rubbish").unwrap();
        assert!(Draws::read(&file, &Device::Cpu).is_err());
    }

    #[test]
    fn draws_survive_a_checkpoint() {
        let mut state = TensorMap::new();
        example().save("gibbs", &mut state).unwrap();
        let back = Draws::load("gibbs", &mut state).unwrap().unwrap();
        assert_eq!((back.chain, back.time), (example().chain, example().time));
        assert!(state.is_empty() && Draws::load("gibbs", &mut state).unwrap().is_none());
    }
}
