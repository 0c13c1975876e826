//! The rule by which a set-up is called calibrated, and the reasons why it is not.

use super::{coverage::Coverage, holm::adjusted, report::Report};

/// Replicates and independent draws below which nothing is called calibrated.
pub const FEWEST: [usize; 2] = [200, 99];
/// Probability with which a calibrated set-up fails one of the two families of tests.
pub const ALPHA: f64 = 0.05;
/// Spread over skill of a calibrated set-up.
pub const RATIOS: [f64; 2] = [0.9, 1.1];

impl Report {
    /// The verdict in a sentence.
    pub fn verdict(&self) -> &'static str {
        match self.calibrated {
            Some(true) => "calibrated: truths lie among the draws as draws among themselves",
            Some(false) => "not calibrated: truths do not lie among the draws as draws among themselves",
            None => "no verdict: too few replicates or draws",
        }
    }

    /// Sets the verdict and its reasons.
    pub(super) fn apply_rule(&mut self) {
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
