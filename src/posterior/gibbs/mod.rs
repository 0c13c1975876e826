//! Annealed split Gibbs sampling: the likelihood by Hamiltonian steps, the prior by reverse diffusion.
//!
//! An auxiliary image z splits the posterior (Vono et al. 2019; PnP-DM, Wu et al. 2024):
//! p(x) N(z; x, r^2 I) p(y|z), whose marginal in x tends to the posterior as the coupling r falls. Each round draws
//! z given x by Metropolis-adjusted Hamiltonian steps, which need no network and cannot leave their target even
//! where the likelihood is singular, or of cameras by solving a linear system, and x given z by a short reverse diffusion from
//! noise level r. Hamiltonian steps move the coordinates that the data see (see [`Seen`]); the others are a plain Gaussian draw.
//! After a cycle's first round, Langevin steps of z may take the place of both draws (`kinetic.rs`).
//!
//! Chains that end in a wrong mode (a wrong turn of a phase) are recognised by their fit: see [`restart::Restart`]. While r is
//! large they go on from copies of others, which part again; later they are given up and leave no draw until the next cycle that begins
//! anew, with all chains.
//!
//! A coupled posterior prefers bright images where data are phases or ratios, and chains keep some of that as r falls. Cycles that go
//! on from others' ends balance it ([`Problem::balanced`]), and only they leave draws then.
//!
//! While r hides what half as many pixels along each side leave out, chains live on those of a coarser prior, if there is one.

mod cycle;
mod hamiltonian;
mod kinetic;
mod perturbed;
mod pool;
mod scene;
mod settings;

use candle_core::{Device, Tensor};

use crate::{
    Result,
    instrument::{Problem, Seen},
    posterior::{
        Draws, Solver, Step,
        covariance::Covariance,
        diagnostics::margin,
        kinetic::{Dynamics, Way},
        restart,
        solver::{TensorMap, take},
        step_sizes::StepSizes,
        thinning::Thinning,
    },
    prior::{Coarser, Denoiser, reverse::draw_given_noisy},
    rng::Rng,
    tensor::compute_of,
    transfer::Transfer,
};

use cycle::{Cycle, Moved, Round, Tuning};
use hamiltonian::Coupling;
use pool::Pool;
use scene::{Scene, View};
pub use settings::GibbsSettings;
use settings::Place;

/// Annealed split Gibbs sampler, one chain per start image.
#[derive(Debug)]
pub struct Gibbs {
    settings: GibbsSettings,
    round: usize,
    start: Tensor,
    /// Of rounds on the finest pixels, and on coarser ones.
    views: [Option<View>; 2],
    /// Whether reheated cycles balance the likelihood. Known from the first round on.
    balances: Option<bool>,
    cycle: Cycle,
    pool: Pool,
    kept: Thinning,
}

impl Gibbs {
    /// A sampler whose chains start at the images `start` `[K, Z, Y, X]`, network unit.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(settings: GibbsSettings, start: Tensor) -> Result<Self> {
        settings.validate()?;
        let cycle = Cycle::new(start.clone(), (0..start.dim(0)?).collect(), &settings);
        let end = settings.anneal + settings.rounds;
        let kept = Thinning::new(settings.anneal + settings.rounds / 4, end, settings.draws);
        Ok(Self {
            settings,
            round: 0,
            start,
            views: [None, None],
            balances: None,
            cycle,
            pool: Pool::default(),
            kept,
        })
    }

    /// Looks for lost chains where it is due: replaces them while copies still part, gives them up later, and keeps
    /// the others' draws. Returns how many were replaced and given up. Rounds with a `balanced` likelihood say nothing of how well
    /// chains fit; rounds of reheated cycles are judged among themselves.
    fn check(
        &mut self,
        place: Place,
        balanced: bool,
        parting: bool,
        problem: &Problem,
        rng: &mut Rng,
    ) -> Result<[f64; 2]> {
        let (rule, draws) = (&self.settings.restart, self.kept.is_due(place.round));
        if !draws && (balanced || !rule.due(place.round, self.settings.anneal)) {
            return Ok([0.0; 2]);
        }
        let judged = place.round + usize::from(place.reheated) * self.settings.whole();
        let cycle = &mut self.cycle;
        let lost = match balanced {
            true => vec![false; cycle.chains.len()],
            false => self.pool.judge(judged, cycle.fits.values(), margin(problem, rule.threshold)),
        };
        if parting && !draws {
            cycle.take(&restart::replacements(&lost, rng))?;
            return Ok([restart::count(&lost), 0.0]);
        }
        let good: Vec<usize> = (0..lost.len()).filter(|&i| !lost[i]).collect();
        // The best of a cycle goes on even if all are lost, and leaves no draw either.
        let left = if good.is_empty() { vec![cycle.fits.best()] } else { good.clone() };
        let dropped = cycle.chains.len() - left.len();
        if dropped > 0 {
            cycle.narrow(&left)?;
        }
        if draws && (place.reheated || self.balances == Some(false)) && !good.is_empty() {
            self.kept.keep(&cycle.x, &cycle.chains, self.round);
            for (&chain, &fit) in cycle.chains.iter().zip(cycle.fits.values()) {
                self.pool.draw(judged, self.round, chain, fit);
            }
        }
        Ok([0.0, dropped as f64])
    }

    /// Begins a cycle, or lets the chains go on with other pixels: with those of `coarser` if `coarse`.
    fn renew(
        &mut self,
        place: Place,
        coarse: bool,
        coarser: Option<Coarser>,
        problem: &Problem,
        rng: &mut Rng,
    ) -> Result<()> {
        if place.begins {
            let (images, chains) = match place.reheated {
                true => (&self.cycle.x, self.cycle.chains.clone()),
                false => (&self.start, (0..self.start.dim(0)?).collect()),
            };
            self.cycle = Cycle::new(problem.placed(images, rng)?, chains, &self.settings);
        }
        let is_coarse = self.cycle.x.dims()[1..] != self.start.dims()[1..];
        if let Some(coarser) = coarser.filter(|_| is_coarse != coarse) {
            let x = &self.cycle.x;
            let x = if coarse { coarser.halved(x)? } else { coarser.doubled(x)? };
            self.cycle = Cycle {
                fits: self.cycle.fits.clone(),
                ..Cycle::new(x, self.cycle.chains.clone(), &self.settings)
            };
        }
        Ok(())
    }

    /// Moves z in the given round of a cycle. The likelihood is that of `problem`, which may be a balanced one.
    fn moved(&mut self, round: usize, scene: &Scene, problem: &Problem, rng: &mut Rng) -> Result<Moved> {
        let Scene { seen, prior, level, coarsens, .. } = *scene;
        let (settings, cycle) = (&self.settings, &mut self.cycle);
        let counts = [settings.trajectories_in(round), settings.leaps];
        let fresh = |finished: usize| settings.is_fresh(finished, coarsens);
        let tuning = match fresh(self.round) {
            _ if round >= self.kept.first() => Tuning::Kept,
            true => Tuning::Found,
            false => Tuning::Adapted,
        };
        let fall = match round {
            0 => 1.0,
            _ => settings.level(round) / settings.level(round - 1),
        };
        let settled = settings.kinetic
            && self
                .round
                .checked_sub(1)
                .is_some_and(|last| !fresh(last) && !self.kept.is_due(settings.place(last).round));
        let round = Round { level, fall, tuning, settled };
        match (seen, cycle.z.take()) {
            (Seen::Informed(information), last) => {
                let covariance = Covariance::new(information, level, &compute_of(&cycle.x))?;
                let from = last.unwrap_or_else(|| cycle.x.clone());
                perturbed::draw(problem, &covariance, from, &cycle.x, level, rng)
            }
            (_, Some(last)) if settings.kinetic => {
                let dynamics = Dynamics { problem, prior, way: Way::Flows };
                kinetic::moved(&dynamics, cycle, last, round, settings.denoise, rng)
            }
            (_, last) => {
                let mut target = |z: &Tensor| seen.log_likelihood_and_gradient(problem, z);
                Coupling { seen, round }.moved(cycle, last, counts, &mut target, rng)
            }
        }
    }

    /// One round, its chains on the pixels of `scene`.
    fn advance(&mut self, place: Place, scene: &Scene, rng: &mut Rng) -> Result<Step> {
        let Scene { problem, prior, level, .. } = *scene;
        let round = place.round;
        let relative = self.settings.level(round);
        let balances = *self
            .balances
            .get_or_insert_with(|| self.settings.balances() && problem.balanced(level).is_some());
        let wide = relative >= self.settings.balance_level;
        let balanced = (balances && place.reheated && wide).then(|| problem.balanced(level)).flatten();
        let moved = self.moved(round, scene, balanced.as_ref().unwrap_or(problem), rng)?;
        let cycle = &mut self.cycle;
        cycle.x = match moved.clean {
            Some(clean) if !self.kept.is_due(round) => clean,
            _ => draw_given_noisy(prior, &moved.z, level, self.settings.denoise, rng)?,
        };
        let fits = match balanced.is_some() {
            true => problem.log_likelihood(&moved.z)?,
            false => moved.log_density,
        };
        let log_likelihood = cycle.fits.observe(&fits)?;
        cycle.z = Some(moved.z);
        let parting = relative > self.settings.restart.level;
        let [restarted, dropped] = self.check(place, balanced.is_some(), parting, problem, rng)?;
        self.round += 1;
        let mut metrics = vec![("level", scene.finest), ("log_likelihood", log_likelihood)];
        metrics.extend(moved.metrics);
        metrics.extend([("restarted", restarted), ("dropped", dropped)]);
        Ok(Step { stage: "gibbs", metrics })
    }
}

impl Solver for Gibbs {
    fn steps(&self) -> usize {
        self.settings.steps()
    }

    fn finished_draws(&self) -> usize {
        if self.settings.place(self.round).begins { self.pool.good_draws() } else { 0 }
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let place = self.settings.place(self.round);
        let coarse = self.settings.is_coarse(place.round);
        self.renew(place, coarse, prior.coarser(), problem, rng)?;
        let coarser = prior.coarser().filter(|_| coarse);
        let known = usize::from(coarser.is_some());
        let view = match self.views[known].take() {
            Some(view) => view,
            None => View::of(problem, coarser, &self.start.mean_keepdim(0)?)?,
        };
        let level = prior.data_std() * self.settings.level(place.round);
        let step = self.advance(place, &view.scene(problem, prior, coarser, level), rng);
        self.views[known] = Some(view);
        step
    }

    fn draws(&self) -> Result<Draws> {
        self.pool.good(&self.kept.draws()?)
    }

    fn state(&self) -> Result<TensorMap> {
        let mut state = TensorMap::new();
        let mut put = |name: &str, tensor: Tensor| state.insert(format!("gibbs.{name}"), tensor);
        put("round", Tensor::new(&[self.round as i64], &Device::Cpu)?);
        put("start", self.start.clone());
        let chains: Vec<i64> = self.cycle.chains.iter().map(|&chain| chain as i64).collect();
        put("chains", Tensor::new(chains, &Device::Cpu)?);
        put("x", self.cycle.x.clone());
        put("steps", self.cycle.steps.state()?);
        if let Some(z) = &self.cycle.z {
            put("z", z.clone());
            put("fits", self.cycle.fits.state()?);
        }
        self.pool.save(&mut state)?;
        self.kept.save("gibbs", &mut state)?;
        Ok(state)
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        self.kept.restore("gibbs", &mut state)?;
        self.pool = Pool::restore(&mut state)?;
        let all = self.start.dims().to_vec();
        let left = state.get("gibbs.chains").map_or(0, Tensor::elem_count);
        let images = match state.get("gibbs.x") {
            // Chains in rounds of a coarser prior.
            Some(x) if x.dims()[1..] == [all[1], all[2] / 2, all[3] / 2] => {
                [&[left], &x.dims()[1..]].concat()
            }
            _ => [&[left], &all[1..]].concat(),
        };
        let mut take = |name: &str, shape: &[usize]| take(&mut state, &format!("gibbs.{name}"), shape);
        let round = take("round", &[1])?.read_list::<i64>()?;
        self.round = round.first().map_or(0, |n| n.unsigned_abs() as usize);
        self.start = take("start", &all)?;
        let chains = take("chains", &[left])?.read_list::<i64>()?;
        self.cycle.chains = chains.iter().map(|&chain| chain.unsigned_abs() as usize).collect();
        self.cycle.x = take("x", &images)?;
        self.cycle.steps =
            StepSizes::from_state(&take("steps", &[left + 1])?, left, self.settings.acceptance)?;
        self.cycle.z = None;
        if self.round > 0 {
            self.cycle.fits.restore(&take("fits", &[left])?)?;
            self.cycle.z = Some(take("z", &images)?);
        }
        Ok(())
    }
}
