//! A linear Gaussian problem whose posterior is known, with right and wrong answers: what a calibration must tell apart.

use std::sync::atomic::AtomicBool;

use super::{Functional, Kind, Record, Replicate, Source};
use crate::{Result, rng::Rng};

/// Coordinates x ~ N(0, 1), and of these the first are measured with noise.
const SIZE: usize = 6;
const MEASURED: usize = 4;
const SIGMA: f64 = 0.5;
const DRAWS: usize = 100;

/// What is taken for the posterior.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Answer {
    /// The posterior.
    Exact,
    /// The posterior with standard deviations times this.
    Scaled(f64),
    /// The prior.
    Prior,
}

/// The source of replicates.
pub(crate) struct Bed {
    answer: Answer,
}

impl Bed {
    pub(crate) fn new(answer: Answer) -> Self {
        Self { answer }
    }

    fn draw(&self, data: &[f64], rng: &mut Rng) -> Vec<f64> {
        let gain = 1.0 / (1.0 + SIGMA * SIGMA);
        let of = |k: usize, normal: f64| match (self.answer, data.get(k)) {
            (Answer::Prior, _) | (Answer::Exact, None) => normal,
            (Answer::Scaled(width), None) => width * normal,
            (Answer::Exact, Some(y)) => gain * y + gain.sqrt() * SIGMA * normal,
            (Answer::Scaled(width), Some(y)) => gain * y + width * gain.sqrt() * SIGMA * normal,
        };
        (0..SIZE).map(|k| of(k, rng.normal())).collect()
    }
}

fn log_likelihood(x: &[f64], data: &[f64]) -> f64 {
    -0.5 * data.iter().zip(x).map(|(y, x)| ((y - x) / SIGMA).powi(2)).sum::<f64>()
}

/// Coordinates, their sum, and the log likelihood.
fn functionals(x: &[f64], data: &[f64]) -> Vec<Option<f32>> {
    let values = x.iter().copied().chain([x.iter().sum(), log_likelihood(x, data)]);
    values.map(|value| Some(value as f32)).collect()
}

impl Source for Bed {
    fn replicate(&mut self, _: u64, rng: &Rng, _: &AtomicBool) -> Result<Replicate> {
        let mut rng = rng.stream("bed", 0);
        let normals = |rng: &mut Rng| (0..SIZE).map(|_| rng.normal()).collect::<Vec<f64>>();
        let truth = normals(&mut rng);
        let data: Vec<f64> = truth[..MEASURED].iter().map(|x| x + SIGMA * rng.normal()).collect();
        let others: Vec<Vec<f64>> = (0..16).map(|_| normals(&mut rng)).collect();
        let best = others.iter().max_by(|a, b| log_likelihood(a, &data).total_cmp(&log_likelihood(b, &data)));
        let reference = functionals(best.unwrap(), &data);
        let draws: Vec<Vec<Option<f32>>> =
            (0..DRAWS).map(|_| functionals(&self.draw(&data, &mut rng), &data)).collect();
        let mut named: Vec<Functional> =
            (0..SIZE).map(|k| Functional::new(format!("x{k}"), Kind::Scalar)).collect();
        named.push(Functional::new("sum", Kind::Scalar));
        named.push(Functional::new("log_likelihood", Kind::Fit));
        Ok(Replicate {
            truth: functionals(&truth, &data),
            draws: (0..named.len()).map(|f| draws.iter().map(|draw| draw[f]).collect()).collect(),
            reference,
            // One draw of each chain: they are independent.
            chain: (0..DRAWS as u32).collect(),
            functionals: named,
        })
    }
}

/// `count` replicates of a bed.
pub(crate) fn records(answer: Answer, count: u64, seed: u64) -> Vec<Record> {
    let mut bed = Bed::new(answer);
    let record = |replicate: u64| {
        let rng = Rng::new(seed).stream("replicate", replicate);
        let result = bed.replicate(replicate, &rng, &AtomicBool::new(false)).unwrap();
        Record { setup: "a".into(), seed, replicate, seconds: 0.0, error: None, result: Some(result) }
    };
    (0..count).map(record).collect()
}
