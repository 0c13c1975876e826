//! The verdict on a set-up: all measures of its replicates, and the rule by which they pass.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    case::{Case, cases},
    conformal::{Scaling, scalings},
    coverage::{Coverage, MASSES},
    energy::{Score, continuous_ranked, energy},
    holm::adjusted,
    rank::position,
    record::{Functional, Kind, Record, Replicate},
    spread::{Spread, joint},
    tarp::Points,
    thinning::{effective, kept},
    uniformity::Uniformity,
};
use crate::rng::Rng;

/// What `calibration.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// True or false by the pass rule, null where there are too few replicates or draws.
    pub calibrated: Option<bool>,
    /// Why it is not true.
    pub reasons: Vec<String>,
    /// SHA-256 of the settings.
    pub setup: String,
    /// Number of replicates, failed ones included.
    pub replicates: usize,
    /// Failed replicates. They count as truths outside of all draws.
    pub failed: Vec<Failure>,
    /// Smallest number of draws of a replicate.
    pub draws: usize,
    /// Draws among which truths are ranked: as many as are as good as independent, and no more than any replicate has.
    pub independent_draws: usize,
    /// Functional by functional.
    pub functionals: Vec<Judged>,
    /// Coverage of all on-source pixels together, replicates as trials.
    pub pixels_on_source: Vec<Coverage>,
    /// What would make the intervals of on-source pixels hold what they claim, all pixels together. Those of one replicate
    /// are not independent, so that this is an estimate and no guarantee.
    pub pixel_scaling: Vec<Scaling>,
    /// All features together.
    pub tarp: Option<Ranked>,
    /// Energy score of all features together, each over its standard deviation.
    pub energy_score: Option<Score>,
    /// Spread over skill of all functionals of the image together.
    pub spread_over_skill: Option<f64>,
    /// Wall-clock time of all replicates.
    pub seconds: f64,
}

/// A replicate that gave no draws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Seed of its campaign.
    pub seed: u64,
    /// Its number.
    pub replicate: u64,
    /// What went wrong.
    pub error: String,
}

/// Positions of truths among draws, which are uniform if calibrated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ranked {
    /// Position of each truth, 0 to 1.
    pub positions: Vec<f64>,
    /// Probability that uniform positions stray as far.
    pub p: f64,
    /// The same with Holm's correction for all rank tests.
    pub p_adjusted: f64,
}

/// One functional.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Its name.
    pub name: String,
    /// How it is compared.
    pub kind: Kind,
    /// Number of truths that have it.
    pub replicates: usize,
    /// Ranks.
    pub ranks: Ranked,
    /// Coverage of its intervals.
    pub coverage: Vec<Coverage>,
    /// Spread against skill.
    pub spread: Spread,
    /// Fair continuous ranked probability score.
    pub crps: Option<Score>,
    /// What would make its intervals hold what they claim.
    pub conformal: Vec<Scaling>,
}

/// Judges the records of one set-up. The random numbers of ties and simulated bands are the same for the same records.
pub fn judge(setup: &str, records: &[Record]) -> Report {
    let replicates: Vec<&Replicate> = records.iter().filter_map(|record| record.result.as_ref()).collect();
    let failed: Vec<Failure> = records.iter().filter_map(Failure::of).collect();
    let (count, mut tests) = (effective(&replicates), Tests::default());
    let named = replicates.first().map_or(&[][..], |replicate| &replicate.functionals);
    let (mut functionals, mut pixels) = (Vec::new(), Pixels::new(replicates.len()));
    for (index, functional) in named.iter().enumerate() {
        let cases = cases(&replicates, index, count);
        let mut rng = Rng::new(0).stream("ties", index as u64);
        let positions: Vec<f64> =
            cases.iter().map(|case| position(case.truth, &case.draws, &mut rng)).collect();
        if functional.kind == Kind::Pixel {
            pixels.add(&cases, &positions);
        }
        let misses = failed.iter().map(|_| outside(&mut rng));
        functionals.extend(judged(functional, &cases, positions.into_iter().chain(misses), &mut tests));
    }
    let points = points(&replicates, count);
    let draws = replicates.iter().map(|replicate| replicate.chain.len()).min().unwrap_or(0);
    let of_image = functionals.iter().filter(|f| f.kind != Kind::Fit).map(|f| &f.spread);
    let mut report = Report {
        calibrated: None,
        reasons: Vec::new(),
        setup: setup.into(),
        replicates: records.len(),
        draws,
        independent_draws: count.min(draws),
        tarp: accuracy(&points, failed.len(), &mut tests),
        pixels_on_source: pixels.coverage(failed.len()),
        pixel_scaling: if pixels.cases.is_empty() { Vec::new() } else { scalings(&pixels.cases) },
        energy_score: energy(&points.into_iter().map(|p| (p.truth, p.draws)).collect::<Vec<_>>()),
        spread_over_skill: joint(&of_image.collect::<Vec<_>>()),
        functionals,
        failed,
        seconds: records.iter().map(|record| record.seconds).sum(),
    };
    report.correct();
    report.apply_rule();
    report
}

/// One functional with the positions of its truths, those of failed replicates included; nothing without any.
fn judged(
    functional: &Functional,
    cases: &[Case],
    positions: impl Iterator<Item = f64>,
    tests: &mut Tests,
) -> Option<Judged> {
    let positions: Vec<f64> = positions.collect();
    (!positions.is_empty()).then(|| Judged {
        name: functional.name.clone(),
        kind: functional.kind,
        replicates: positions.len(),
        coverage: MASSES.map(|mass| Coverage::of(&positions, mass)).to_vec(),
        ranks: tests.ranked(positions),
        spread: Spread::of(cases),
        crps: continuous_ranked(cases),
        conformal: scalings(cases),
    })
}

/// The on-source pixels of all replicates.
struct Pixels {
    cases: Vec<Case>,
    /// Positions of the truths of each replicate.
    positions: Vec<Vec<f64>>,
}

impl Pixels {
    fn new(replicates: usize) -> Self {
        Self { cases: Vec::new(), positions: vec![Vec::new(); replicates] }
    }

    fn add(&mut self, cases: &[Case], positions: &[f64]) {
        cases
            .iter()
            .zip(positions)
            .for_each(|(case, position)| self.positions[case.replicate].push(*position));
        self.cases.extend_from_slice(cases);
    }

    /// Replicates are the trials, and a failed one is a miss.
    fn coverage(&self, failed: usize) -> Vec<Coverage> {
        if self.cases.is_empty() {
            return Vec::new();
        }
        let misses = std::iter::repeat_n(vec![1.0], failed);
        let groups: Vec<Vec<f64>> = self.positions.iter().cloned().chain(misses).collect();
        MASSES.iter().filter_map(|mass| Coverage::of_groups(&groups, *mass)).collect()
    }
}

/// TARP of all features together; nothing without features.
fn accuracy(points: &[Points], failed: usize, tests: &mut Tests) -> Option<Ranked> {
    let mut rng = Rng::new(0).stream("tarp", 0);
    let mut positions: Vec<f64> = points.iter().map(|point| point.position(&mut rng)).collect();
    positions.extend((0..failed).map(|_| outside(&mut rng)));
    (!points.is_empty()).then(|| tests.ranked(positions))
}

impl Failure {
    fn of(record: &Record) -> Option<Self> {
        let error = record.error.clone()?;
        Some(Self { seed: record.seed, replicate: record.replicate, error })
    }
}

/// The position of a truth that no draw comes near, at either end.
fn outside(rng: &mut Rng) -> f64 {
    f64::from(u8::from(rng.uniform() < 0.5))
}

/// Tests of uniformity by the number of values.
#[derive(Default)]
struct Tests(HashMap<usize, Uniformity>);

impl Tests {
    fn ranked(&mut self, positions: Vec<f64>) -> Ranked {
        let count = positions.len();
        let test = self
            .0
            .entry(count)
            .or_insert_with(|| Uniformity::new(count, &mut Rng::new(0).stream("band", count as u64)));
        let p = test.p_value(&positions);
        Ranked { positions, p, p_adjusted: p }
    }
}

/// Truths, `count` draws and references as vectors of those features that no image lacks, each over its standard deviation.
fn points(replicates: &[&Replicate], count: usize) -> Vec<Points> {
    let named = replicates.first().map_or(&[][..], |replicate| &replicate.functionals);
    let usable = |index: &usize| {
        matches!(named[*index].kind, Kind::Scalar | Kind::Pixel)
            && replicates.iter().all(|replicate| {
                let all = replicate.draws[*index].iter();
                all.chain([&replicate.truth[*index], &replicate.reference[*index]]).all(Option::is_some)
            })
    };
    let features: Vec<(usize, f64)> = (0..named.len())
        .filter(usable)
        .map(|index| (index, deviation(replicates, index)))
        .filter(|(_, deviation)| *deviation > 0.0)
        .collect();
    if features.is_empty() {
        return Vec::new();
    }
    let vector = |of: &dyn Fn(usize) -> Option<f32>| -> Vec<f64> {
        features.iter().filter_map(|(index, scale)| Some(f64::from(of(*index)?) / scale)).collect()
    };
    let point = |replicate: &&Replicate| Points {
        truth: vector(&|index| replicate.truth[index]),
        draws: kept(replicate.chain.len(), count)
            .into_iter()
            .map(|draw| vector(&|index| replicate.draws[index][draw]))
            .collect(),
        reference: vector(&|index| replicate.reference[index]),
    };
    replicates.iter().map(point).collect()
}

/// Standard deviation of a functional over all truths and draws.
fn deviation(replicates: &[&Replicate], index: usize) -> f64 {
    let values = || replicates.iter().flat_map(|r| r.draws[index].iter().chain([&r.truth[index]])).flatten();
    let count = values().count().max(1) as f64;
    let mean = values().map(|value| f64::from(*value)).sum::<f64>() / count;
    (values().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count).sqrt()
}

impl Report {
    /// Factor about the mean that makes both judged intervals of on-source pixels hold at least what they claim.
    pub fn image_factor(&self) -> Option<f64> {
        let factors: Option<Vec<f64>> = self.pixel_scaling.iter().map(|scaling| scaling.factor).collect();
        factors?.into_iter().reduce(f64::max)
    }

    /// Holm's correction over all rank tests.
    fn correct(&mut self) {
        let ranked = || self.functionals.iter().map(|f| &f.ranks).chain(&self.tarp);
        let adjusted = adjusted(&ranked().map(|ranked| ranked.p).collect::<Vec<_>>());
        let ranked = self.functionals.iter_mut().map(|f| &mut f.ranks).chain(&mut self.tarp);
        ranked.zip(adjusted).for_each(|(ranked, p)| ranked.p_adjusted = p);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::{
        bed::{Answer, records},
        rule::ALPHA,
    };

    fn has(report: &Report, reason: &str) -> bool {
        report.reasons.iter().any(|text| text.contains(reason))
    }

    /// Both families of tests may fail by chance with 5 % each.
    #[test]
    fn an_exact_posterior_is_calibrated() {
        let verdicts = (0..10).map(|seed| judge("a", &records(Answer::Exact, 200, seed)).calibrated);
        assert!(verdicts.filter(|verdict| *verdict == Some(true)).count() >= 8);
    }

    #[test]
    fn an_over_confident_posterior_is_not() {
        let report = judge("a", &records(Answer::Scaled(0.7), 200, 1));
        assert_eq!(report.calibrated, Some(false));
        assert!(has(&report, "ranks of x0") && has(&report, "68 % intervals of x0"), "{:?}", report.reasons);
        assert!(has(&report, "spread over skill is 0.7") && has(&report, "tarp"), "{:?}", report.reasons);
        let factors = report.functionals[..6].iter().map(|f| f.conformal[0].factor.unwrap());
        let mean = factors.sum::<f64>() / 6.0;
        assert!((mean - 1.0 / 0.7).abs() < 0.15, "{mean}");
    }

    /// Ranks of the image alone are uniform; log likelihood and data-dependent references tell.
    #[test]
    fn the_prior_in_place_of_the_posterior_is_found() {
        let report = judge("a", &records(Answer::Prior, 200, 1));
        assert_eq!(report.calibrated, Some(false));
        let p = |name: &str| report.functionals.iter().find(|f| f.name == name).unwrap().ranks.p_adjusted;
        assert!(p("x0") > ALPHA && p("sum") > ALPHA && p("log_likelihood") < 0.01);
        assert!(report.tarp.as_ref().unwrap().p_adjusted < 0.01, "{:?}", report.reasons);
    }

    #[test]
    fn too_few_replicates_give_no_verdict() {
        let report = judge("a", &records(Answer::Exact, 40, 1));
        assert_eq!(report.calibrated, None);
        assert!(has(&report, "40 replicates; a verdict needs 200"), "{:?}", report.reasons);
        assert_eq!(judge("a", &[]).calibrated, None);
    }

    /// Thirty of 200 lost runs leave too few truths in the intervals.
    #[test]
    fn failed_replicates_are_misses() {
        let mut records = records(Answer::Exact, 200, 2);
        for record in &mut records[..30] {
            record.result = None;
            record.error = Some("diverged".into());
        }
        let report = judge("a", &records);
        assert_eq!((report.calibrated, report.failed.len()), (Some(false), 30));
        assert!(has(&report, "30 replicates failed"), "{:?}", report.reasons);
        assert_eq!(report.functionals[0].replicates, 200);
    }
}
