//! Rivals against the moments that their published updates give: prior N(0, 1), y = 1.5 with noise 0.5.
//!
//! There D(x, s) = x / (1 + s^2), and every update is affine in the image and in fresh normal numbers. So
//! mean and variance follow from level to level without sampling, and 4000 chains must have those of the last
//! level. Few levels tell formulas apart that many levels make alike.

use antumbra::{compute::Compute, instrument::exact::projection, posterior::SolverSettings};

use super::rivals::{bed, images, moments, run};

const CHAINS: usize = 4000;
const Y: f64 = 1.5;
const SIGMA: f64 = 0.5;

/// Mean and variance.
type Law = (f64, f64);

/// Number of noise levels, the first and the last.
#[derive(Clone, Copy)]
struct Levels(usize, f64, f64);

/// The defaults of most rivals.
const MANY: Levels = Levels(200, 100.0, 0.01);
const FEW: Levels = Levels(20, 100.0, 0.1);

impl Levels {
    fn yaml(self) -> String {
        let Self(steps, largest, smallest) = self;
        format!("schedule: {{steps: {steps}, largest: {largest:?}, smallest: {smallest:?}}}\n")
    }

    /// Levels that fall geometrically, then zero.
    fn values(self) -> Vec<f64> {
        let Self(steps, largest, smallest) = self;
        let level = |i: usize| largest * (smallest / largest).powf(i as f64 / (steps - 1) as f64);
        (0..steps).map(level).chain([0.0]).collect()
    }

    /// What becomes of a law that `step` carries from each level to the next.
    fn carry(self, start: Law, step: impl Fn(Law, f64, f64) -> Law) -> Law {
        let levels = self.values();
        levels.windows(2).fold(start, |law, pair| step(law, pair[0], pair[1]))
    }

    /// The same from white noise of the first level.
    fn carry_noise(self, step: impl Fn(Law, f64, f64) -> Law) -> Law {
        self.carry((0.0, self.1 * self.1), step)
    }
}

/// The law of x' for an update that is affine in x and in N independent standard normal numbers.
fn moved<const N: usize>((mean, variance): Law, update: impl Fn(f64, [f64; N]) -> f64) -> Law {
    let rest = update(0.0, [0.0; N]);
    let slope = update(1.0, [0.0; N]) - rest;
    let share = |i: usize| update(0.0, std::array::from_fn(|j| f64::from(u8::from(i == j)))) - rest;
    (slope * mean + rest, slope * slope * variance + (0..N).map(|i| share(i).powi(2)).sum::<f64>())
}

fn denoised(x: f64, s: f64) -> f64 {
    x / (1.0 + s * s)
}

/// x' of level t given x of level s and the clean image (Song et al. 2021, "Denoising diffusion implicit
/// models", eq. 12 and 16): `eta` times the diffusion's own noise, the rest of t^2 along that which x has.
fn renoised(x: f64, clean: f64, [s, t]: [f64; 2], eta: f64, n: f64) -> f64 {
    let fresh = eta * t * (1.0 - (t / s).powi(2)).sqrt();
    clean + (t * t - fresh * fresh).sqrt() * (x - clean) / s + fresh * n
}

/// The image that minimises (y - x)^2 / 2 sigma^2 + weight (x - clean)^2 / 2 s^2.
fn fitted(clean: f64, s: f64, weight: f64) -> f64 {
    let (of_data, of_clean) = (SIGMA.powi(-2), weight / (s * s));
    (of_data * Y + of_clean * clean) / (of_data + of_clean)
}

/// Holds chains to a law: within 4.5 standard errors and the rounding of f32.
fn check(name: &str, changes: &str, exact: Law) {
    let (mean, std) = moments(&images(name, changes, &bed("gaussian-1d"), CHAINS));
    let (right, spread) = (exact.0, exact.1.sqrt());
    println!("{name} {changes:?}: {mean:.4} {std:.4}, exact {right:.4} {spread:.4}");
    assert!((mean - right).abs() < 0.07 * spread + 0.002, "{name}: mean {mean}, exact {right}");
    assert!((std - spread).abs() < 0.05 * spread + 0.002, "{name}: deviation {std}, exact {spread}");
}

/// The clean image is N(D, r^2) with r^2 = s^2 / (s^2 + 1), and moves by the score of N(y; D, r^2 + sigma^2).
#[test]
fn pigdm_has_its_moments() {
    for (levels, eta) in [(MANY, 1.0), (FEW, 1.0), (FEW, 0.5)] {
        let exact = levels.carry_noise(|law, s, t| {
            moved(law, |x, [n]: [f64; 1]| {
                let (clean, slope) = (denoised(x, s), denoised(1.0, s));
                let uncertain = s * s / (s * s + 1.0);
                let score = slope * (Y - clean) / (uncertain + SIGMA * SIGMA);
                renoised(x, clean + s * s * score, [s, t], eta, n)
            })
        });
        check("pigdm", &format!("{}eta: {eta:?}", levels.yaml()), exact);
    }
}

/// Kawar et al. 2022, eq. 4, 7 and 8 for the one coordinate, which is measured.
#[test]
fn ddrm_has_its_moments() {
    for (levels, eta, eta_data) in [(MANY, 0.85, 1.0), (FEW, 0.85, 1.0), (FEW, 0.3, 0.5)] {
        let start = (Y, levels.1.powi(2) - SIGMA * SIGMA);
        let exact = levels.carry(start, |law, s, t| {
            moved(law, |x, [n]: [f64; 1]| {
                let clean = denoised(x, s);
                if t < SIGMA {
                    let old: f64 = 1.0 - eta * eta;
                    return clean + old.sqrt() * t * (Y - clean) / SIGMA + eta * t * n;
                }
                let spread: f64 = t * t - (SIGMA * eta_data).powi(2);
                (1.0 - eta_data) * clean + eta_data * Y + spread.sqrt() * n
            })
        });
        check("ddrm", &format!("{}eta: {eta:?}\neta_data: {eta_data:?}", levels.yaml()), exact);
    }
}

/// The clean image takes the share min(1, eta t / sigma) of the data; their noise and fresh noise together have the variance
/// eta^2 t^2. Draws nearly collapse: few levels end where they still differ.
#[test]
fn ddnm_has_its_moments() {
    for (levels, eta) in [(MANY, 1.0), (Levels(8, 100.0, 0.4), 1.0), (Levels(8, 100.0, 0.4), 0.85)] {
        let exact = levels.carry_noise(|law, s, t| {
            moved(law, |x, [n]: [f64; 1]| {
                let (clean, share) = (denoised(x, s), (eta * t / SIGMA).min(1.0));
                let fresh: f64 = (eta * t).powi(2) - (share * SIGMA).powi(2);
                let old: f64 = 1.0 - eta * eta;
                clean + share * (Y - clean) + old.sqrt() * t * (x - clean) / s + fresh.max(0.0).sqrt() * n
            })
        });
        check("ddnm", &format!("{}eta: {eta:?}", levels.yaml()), exact);
    }
}

/// Zhu et al. 2023, algorithm 1: the fitted image, and noise of which the share `fresh` is new.
#[test]
fn diffpir_has_its_moments() {
    for (levels, weight, fresh) in [(MANY, 1.0, 0.3), (FEW, 1.0, 0.3), (FEW, 4.0, 0.8)] {
        let exact = levels.carry_noise(|law, s, t| {
            moved(law, |x, [n]: [f64; 1]| {
                let (clean, kept) = (fitted(denoised(x, s), s, weight), 1.0 - fresh);
                clean + t * (f64::sqrt(kept) * (x - clean) / s + f64::sqrt(fresh) * n)
            })
        });
        check("diffpir", &format!("{}weight: {weight:?}\nfresh: {fresh:?}", levels.yaml()), exact);
    }
}

/// Euler steps of the probability flow dx/ds = (x - D) / s at levels that fall towards the prior's lowest,
/// 0.001, the last to 0; a draw of N(x; x^, s^2) N(y; x, sigma^2) by completing the square; fresh noise.
#[test]
fn daps_has_its_moments() {
    for (levels, flow) in [(MANY, 5), (FEW, 5), (FEW, 2)] {
        let exact = levels.carry_noise(|law, s, t| {
            moved(law, |x, [drawn, fresh]: [f64; 2]| {
                let at = |i: usize| if i < flow { s * (1e-3 / s).powf(i as f64 / flow as f64) } else { 0.0 };
                let euler = |x: f64, i: usize| x + (at(i + 1) - at(i)) * (x - denoised(x, at(i))) / at(i);
                let precision = s.powi(-2) + SIGMA.powi(-2);
                fitted((0..flow).fold(x, euler), s, 1.0) + drawn / precision.sqrt() + t * fresh
            })
        });
        check("daps", &format!("{}flow_steps: {flow}", levels.yaml()), exact);
    }
}

/// Langevin steps by the score of the diffused prior, -x / (1 + s^2), and the likelihood's gradient; in the
/// end the denoised image, which tells where the last level is high.
#[test]
fn pmc_has_its_moments() {
    for (levels, iterations, step) in [(Levels(200, 3.0, 0.01), 5, 0.3), (Levels(20, 3.0, 0.5), 2, 1.2)] {
        let exact = levels.carry_noise(|law, s, t| {
            let length = step / (SIGMA.powi(-2) + s.powi(-2));
            let langevin = |law: Law, _: i32| {
                moved(law, |x, [n]: [f64; 1]| {
                    let slope = (Y - x) / (SIGMA * SIGMA) - x / (1.0 + s * s);
                    x + length * slope + (2.0 * length).sqrt() * n
                })
            };
            let law = (0..iterations).fold(law, langevin);
            if t == 0.0 { moved(law, |x, []: [f64; 0]| denoised(x, s)) } else { law }
        });
        check("pmc", &format!("{}iterations: {iterations}\nstep: {step:?}", levels.yaml()), exact);
    }
}

/// A Kalman filter: x_t given x_s is that of the diffusion, and a datum of the path is x_t with noise sigma.
fn filtered(levels: &[f64], path: &[f64]) -> Law {
    let mut law = (0.0, levels[0] * levels[0]);
    for (pair, datum) in levels.windows(2).zip(path) {
        let [s, t] = [pair[0], pair[1]];
        let (mean, variance) = moved(law, |x, [n]: [f64; 1]| renoised(x, denoised(x, s), [s, t], 1.0, n));
        let gain = variance / (variance + SIGMA * SIGMA);
        law = (mean + gain * (datum - mean), (1.0 - gain) * variance);
    }
    law
}

/// Data of every level after the first: the diffusion from noise back to y, by these normal numbers.
fn path(levels: &[f64], normals: &[f64]) -> Vec<f64> {
    let mut datum = Y + levels[0] * normals[0];
    let step = |(pair, n): (&[f64], &f64)| {
        datum = renoised(datum, Y, [pair[0], pair[1]], 1.0, *n);
        datum
    };
    levels.windows(2).zip(&normals[1..]).map(step).collect()
}

/// Particles share one random path: their mean is right on average over runs only, with a known scatter, for
/// the filter's mean is affine in the path's normal numbers. Their variance is the filter's in every run.
#[test]
fn fps_is_a_kalman_filter_along_its_path() {
    const RUNS: u64 = 16;
    for levels in [MANY, Levels(40, 100.0, 0.01)] {
        let (values, bed) = (levels.values(), bed("gaussian-1d"));
        let law = |normals: &[f64]| filtered(&values, &path(&values, normals));
        let unit = |i: usize| (0..values.len()).map(|j| f64::from(u8::from(i == j))).collect::<Vec<_>>();
        let (mean, variance) = law(&vec![0.0; values.len()]);
        let scatter = (0..values.len()).map(|i| (law(&unit(i)).0 - mean).powi(2)).sum::<f64>().sqrt();
        let settings = format!("name: fps\nchains: 1000\n{}", levels.yaml());
        let settings: SolverSettings = serde_yaml::from_str(&settings).unwrap();
        let found = |seed: u64| moments(&run(&settings, &bed.problem, bed.prior.as_ref(), seed));
        let found: Vec<(f64, f64)> = (0..RUNS).map(found).collect();
        let average = |of: &dyn Fn(&(f64, f64)) -> f64| found.iter().map(of).sum::<f64>() / RUNS as f64;
        let centre = average(&|run| run.0);
        let ratio = average(&|run| ((run.0 - mean) / scatter).powi(2)).sqrt();
        let spread = average(&|run| run.1 * run.1 / variance).sqrt();
        println!("fps: {centre:.4}, exact {mean:.4} +- {scatter:.4}; ratios {ratio:.3}, {spread:.3}");
        assert!((centre - mean).abs() < scatter, "{centre}, exact {mean} +- {scatter}");
        assert!((0.4..1.6).contains(&ratio) && (spread - 1.0).abs() < 0.05, "{ratio} {spread}");
    }
}

/// Without updates of the weights: the fit of DiffPIR, then noise by the rule of implicit models. With them
/// draws follow data that are far outside the prior.
#[test]
fn ddip_adapts_to_data_that_the_prior_does_not_know() {
    for (levels, weight, eta) in [(FEW, 1.0, 0.85), (FEW, 0.3, 0.2)] {
        let exact = levels.carry_noise(|law, s, t| {
            let clean = |x: f64| fitted(denoised(x, s), s, weight);
            moved(law, |x, [n]: [f64; 1]| renoised(x, clean(x), [s, t], eta, n))
        });
        let changes = format!("{}updates: 0\nweight: {weight:?}\neta: {eta:?}", levels.yaml());
        check("ddip", &changes, exact);
    }
    const FAR: f64 = 6.0;
    let (bed, compute) = (bed("gaussian-1d"), Compute::cpu());
    let problem = projection(&[vec![1.0]], &[FAR], SIGMA, &compute).unwrap();
    let fit = |name: &str| {
        let mut settings = SolverSettings::named(name).unwrap();
        settings.set_chains(256);
        let (mean, std) = moments(&run(&settings, &problem, bed.prior.as_ref(), 5));
        println!("{name}: {mean:.3} {std:.3} for data of {FAR}");
        (mean, ((mean - FAR).powi(2) + std * std) / (SIGMA * SIGMA))
    };
    let ((adapted, close), (fixed, far)) = (fit("ddip"), fit("diffpir"));
    assert!((adapted - FAR).abs() < 0.3 && fixed < 5.4, "{adapted} {fixed}");
    assert!(close < 0.7 * far, "chi-square {close} adapted, {far} not");
}

/// N(m, v) on which forces are in balance on average over s, whose logarithm has mean -1.2 and deviation 1.2:
/// m / (1 + s^2) = (y - m) / sigma^2 and 1 / (v + s^2) = 1 / (1 + s^2) + 1 / sigma^2.
fn integral_optimum() -> Law {
    let average = |of: &dyn Fn(f64) -> f64| {
        let (mut sum, mut total) = (0.0, 0.0);
        for u in (-600..=600).map(|i: i32| 0.01 * f64::from(i)) {
            let weight = (-0.5 * u * u).exp();
            sum += weight * of((-1.2 + 1.2 * u).exp().powi(2));
            total += weight;
        }
        sum / total
    };
    let prior = average(&|square| 1.0 / (1.0 + square));
    let precision = prior + SIGMA.powi(-2);
    let (mut low, mut high) = (1e-4, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if average(&|square| 1.0 / (middle + square)) > precision { low = middle } else { high = middle }
    }
    (Y * SIGMA.powi(-2) / precision, low)
}

/// The average of KL(q_s || p_s) has a narrower optimum than KL(q || p), the posterior: 0.33 instead of 0.45.
#[test]
fn davi_has_the_optimum_of_the_integral_divergence() {
    let (mean, variance) = integral_optimum();
    let auxiliary = "auxiliary: {learning_rate: 1e-2, updates: 4, batch: 256}";
    let (found, std) = moments(&images("davi", auxiliary, &bed("gaussian-1d"), 256));
    println!("davi: {found:.3} {std:.3}, optimum {mean:.3} {:.3}; posterior 1.200 0.447", variance.sqrt());
    assert!((found - mean).abs() < 0.08 && (std / variance.sqrt() - 1.0).abs() < 0.2, "{found} {std}");
    assert!((0.6..0.9).contains(&(std / 0.2f64.sqrt())), "{std}");
}
