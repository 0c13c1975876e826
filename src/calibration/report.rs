//! The verdict on a set-up: all measures of its replicates, and the rule by which they pass.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    case::cases,
    conformal::{Scaling, scalings},
    coverage::{Coverage, MASSES},
    energy::{Score, continuous_ranked, energy},
    holm::adjusted,
    rank::position,
    record::{Kind, Record, Replicate},
    spread::{Spread, joint},
    tarp::Points,
    thinning::{effective, kept},
    uniformity::Uniformity,
};
use crate::rng::Rng;

/// Replicates and independent draws below which nothing is called calibrated.
pub const FEWEST: [usize; 2] = [200, 99];
/// Probability with which a calibrated set-up fails one of the two families of tests.
pub const ALPHA: f64 = 0.05;
/// Spread over skill of a calibrated set-up.
pub const RATIOS: [f64; 2] = [0.9, 1.1];

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
    let count = effective(&replicates);
    let rng = Rng::new(0);
    let mut tests = Tests::default();
    let (mut pixels, mut pixel_cases) = (vec![Vec::new(); replicates.len()], Vec::new());
    let named = replicates.first().map_or(&[][..], |replicate| &replicate.functionals);
    let mut functionals: Vec<Judged> = Vec::new();
    for (index, functional) in named.iter().enumerate() {
        let mut rng = rng.stream("ties", index as u64);
        let cases = cases(&replicates, index, count);
        let mut positions: Vec<f64> =
            cases.iter().map(|case| position(case.truth, &case.draws, &mut rng)).collect();
        if functional.kind == Kind::Pixel {
            cases.iter().zip(&positions).for_each(|(case, position)| pixels[case.replicate].push(*position));
        }
        positions.extend(failed.iter().map(|_| outside(&mut rng)));
        if positions.is_empty() {
            continue;
        }
        functionals.push(Judged {
            name: functional.name.clone(),
            kind: functional.kind,
            replicates: positions.len(),
            coverage: MASSES.map(|mass| Coverage::of(&positions, mass)).to_vec(),
            ranks: tests.ranked(positions),
            spread: Spread::of(&cases),
            crps: continuous_ranked(&cases),
            conformal: scalings(&cases),
        });
        if functional.kind == Kind::Pixel {
            pixel_cases.extend(cases);
        }
    }
    pixels.extend(failed.iter().map(|_| vec![1.0]));
    let has_pixels = functionals.iter().any(|functional| functional.kind == Kind::Pixel);
    let points = points(&replicates, count);
    let mut ties = rng.stream("tarp", 0);
    let mut positions: Vec<f64> = points.iter().map(|point| point.position(&mut ties)).collect();
    positions.extend(failed.iter().map(|_| outside(&mut ties)));
    let draws = replicates.iter().map(|replicate| replicate.chain.len()).min().unwrap_or(0);
    let mut report = Report {
        calibrated: None,
        reasons: Vec::new(),
        setup: setup.into(),
        replicates: records.len(),
        failed,
        draws,
        independent_draws: count.min(draws),
        tarp: (!points.is_empty()).then(|| tests.ranked(positions)),
        pixel_scaling: if has_pixels { scalings(&pixel_cases) } else { Vec::new() },
        pixels_on_source: MASSES
            .iter()
            .filter(|_| has_pixels)
            .filter_map(|mass| Coverage::of_groups(&pixels, *mass))
            .collect(),
        energy_score: energy(&points.into_iter().map(|p| (p.truth, p.draws)).collect::<Vec<_>>()),
        spread_over_skill: joint(
            &functionals.iter().filter(|f| f.kind != Kind::Fit).map(|f| &f.spread).collect::<Vec<_>>(),
        ),
        functionals,
        seconds: records.iter().map(|record| record.seconds).sum(),
    };
    report.correct();
    report.apply_rule();
    report
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
    /// The verdict in a sentence.
    pub fn verdict(&self) -> &'static str {
        match self.calibrated {
            Some(true) => "calibrated: truths lie among the draws as draws among themselves",
            Some(false) => "not calibrated: truths do not lie among the draws as draws among themselves",
            None => "no verdict: too few replicates or draws",
        }
    }

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

    /// Sets the verdict and its reasons.
    fn apply_rule(&mut self) {
        let mut few = Vec::new();
        let counts = [self.replicates, self.independent_draws];
        for ((count, least), what) in
            counts.into_iter().zip(FEWEST).zip(["replicates", "independent draws of each"])
        {
            if count < least {
                few.push(format!("{count} {what}; a verdict needs {least}"));
            }
        }
        let mut reasons = self.failed_ranks();
        reasons.extend(self.failed_coverage());
        match self.spread_over_skill {
            Some(ratio) if (RATIOS[0]..=RATIOS[1]).contains(&ratio) => {}
            Some(ratio) => {
                reasons.push(format!("spread over skill is {ratio:.2}, not {} to {}", RATIOS[0], RATIOS[1]));
            }
            None => reasons.push("spread and skill cannot be compared".into()),
        }
        if !self.failed.is_empty() {
            let numbers: Vec<String> = self.failed.iter().map(|f| f.replicate.to_string()).collect();
            let what =
                format!("{} replicates failed (counted as misses): {}", numbers.len(), numbers.join(", "));
            few.push(what);
        }
        self.calibrated = if counts.iter().zip(FEWEST).any(|(count, least)| *count < least) {
            None
        } else {
            Some(reasons.is_empty())
        };
        self.reasons = [few, reasons].concat();
    }

    fn failed_ranks(&self) -> Vec<String> {
        let named = self.functionals.iter().map(|f| (f.name.as_str(), &f.ranks));
        let all = named.chain(self.tarp.iter().map(|ranked| ("tarp", ranked)));
        all.filter(|(_, ranked)| ranked.p_adjusted < ALPHA)
            .map(|(name, ranked)| {
                format!(
                    "ranks of {name} leave the band (p {:.4}, corrected {:.4})",
                    ranked.p, ranked.p_adjusted
                )
            })
            .collect()
    }

    fn failed_coverage(&self) -> Vec<String> {
        let named = self.functionals.iter().flat_map(|f| f.coverage.iter().map(|c| (f.name.as_str(), c)));
        let all: Vec<(&str, &Coverage)> =
            named.chain(self.pixels_on_source.iter().map(|c| ("all on-source pixels", c))).collect();
        let corrected = adjusted(&all.iter().map(|(_, coverage)| coverage.p).collect::<Vec<_>>());
        all.iter()
            .zip(corrected)
            .filter(|(_, p)| *p < ALPHA)
            .map(|((name, coverage), p)| {
                format!(
                    "{:.0} % intervals of {name} hold {:.0} % of the truths (p {:.4}, corrected {p:.4})",
                    100.0 * coverage.mass,
                    100.0 * coverage.inside,
                    coverage.p
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::calibration::{
        Source,
        bed::{Answer, Bed},
    };

    fn records(answer: Answer, count: u64, seed: u64) -> Vec<Record> {
        let mut bed = Bed::new(answer);
        let record = |replicate: u64| {
            let rng = Rng::new(seed).stream("replicate", replicate);
            let result = bed.replicate(replicate, &rng, &AtomicBool::new(false)).unwrap();
            Record { setup: "a".into(), seed, replicate, seconds: 0.0, error: None, result: Some(result) }
        };
        (0..count).map(record).collect()
    }

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
