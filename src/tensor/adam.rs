//! The Adam optimiser with decoupled weight decay, its state exportable so that a run can continue exactly.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};

use super::Packing;
use crate::{Error, Result, transfer::Transfer};

/// Constants of Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamSettings {
    /// Decay of the running mean of the gradient.
    pub beta1: f64,
    /// Decay of the running mean of the squared gradient.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Fraction of a weight removed per unit of learning rate and step.
    pub weight_decay: f64,
    /// Largest Euclidean norm of the gradient of all variables together; longer gradients are shortened to it.
    pub max_gradient_norm: Option<f64>,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, max_gradient_norm: None }
    }
}

/// Adam over named variables.
#[derive(Debug)]
pub struct Adam {
    settings: AdamSettings,
    packing: Packing,
    mean: Tensor,
    square: Tensor,
    steps: u32,
}

impl Adam {
    /// An optimiser of `variables`, at least one, which should have distinct names and one precision.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn new(variables: Vec<(String, Var)>, settings: AdamSettings) -> Result<Self> {
        let packing = Packing::new(variables);
        let zeros = packing.values()?.zeros_like()?;
        Ok(Self { settings, packing, mean: zeros.clone(), square: zeros, steps: 0 })
    }

    /// Number of steps taken.
    pub fn steps(&self) -> usize {
        self.steps as usize
    }

    /// Moves every variable against its gradient, which is zero where there is none; returns the gradient's norm before
    /// clipping.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the gradient is not finite; the variables then stay as they are.
    pub fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<f64> {
        let gradient = self.packing.packed(|_, variable| match gradients.get(variable) {
            Some(gradient) => Ok(gradient.clone()),
            None => Ok(variable.zeros_like()?),
        })?;
        let norm = norm(&gradient)?;
        if !norm.is_finite() {
            return Err(Error::Diverged { what: "the gradient".into(), step: self.steps() });
        }
        let clip = match self.settings.max_gradient_norm {
            Some(limit) if norm > limit => limit / norm,
            _ => 1.0,
        };
        self.steps += 1;
        self.descend(&(gradient * clip)?, learning_rate)?;
        Ok(norm)
    }

    fn descend(&mut self, gradient: &Tensor, learning_rate: f64) -> Result<()> {
        let AdamSettings { beta1, beta2, epsilon, weight_decay, .. } = self.settings;
        self.mean = ((&self.mean * beta1)? + (gradient * (1.0 - beta1))?)?;
        self.square = ((&self.square * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
        let unbias = |beta: f64| 1.0 / (1.0 - beta.powi(self.steps.min(i32::MAX as u32) as i32));
        let scale = (self.square.affine(unbias(beta2), 0.0)?.sqrt()? + epsilon)?;
        let change = (self.mean.affine(learning_rate * unbias(beta1), 0.0)? / scale)?;
        let kept = self.packing.values()?.affine(1.0 - learning_rate * weight_decay, 0.0)?;
        self.packing.set(&(kept - change)?)
    }

    /// Copies of everything a later run needs: `value.NAME`, `mean.NAME`, `square.NAME` and `steps`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = HashMap::from([("steps".to_string(), Tensor::new(self.steps, &Device::Cpu)?)]);
        let values = self.packing.values()?;
        for (prefix, flat) in [("value", &values), ("mean", &self.mean), ("square", &self.square)] {
            let parts = self.packing.parts(flat)?.into_iter();
            state.extend(parts.map(|(name, part)| (format!("{prefix}.{name}"), part)));
        }
        Ok(state)
    }

    /// Continues from [`Adam::state`] of an optimiser of the same variables; sets their values too.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn restore(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        let find = |name: String, like: &Tensor| {
            let tensor = state.get(&name).ok_or_else(|| {
                Error::config("optimiser state", format!("`{name}` is missing; resume with the same model"))
            })?;
            if tensor.dims() != like.dims() {
                return Err(Error::Shape {
                    what: "optimiser state",
                    expected: like.dims().to_vec(),
                    found: tensor.dims().to_vec(),
                });
            }
            Ok(tensor.to_dtype(like.dtype())?.transfer(like.device())?)
        };
        let flat =
            |prefix: &str| self.packing.packed(|name, variable| find(format!("{prefix}.{name}"), variable));
        let (values, mean, square) = (flat("value")?, flat("mean")?, flat("square")?);
        self.steps = find("steps".into(), &Tensor::new(self.steps, &Device::Cpu)?)?.read_scalar::<u32>()?;
        self.packing.set(&values)?;
        (self.mean, self.square) = (mean, square);
        Ok(())
    }
}

/// Euclidean norm of a flat tensor. A GPU adds up each row by itself, so there are many.
fn norm(flat: &Tensor) -> Result<f64> {
    const ROW: usize = 1 << 11;
    let count = flat.dim(0)?;
    let squares = flat.to_dtype(DType::F64)?.sqr()?;
    let rows = squares.pad_with_zeros(0, 0, count.next_multiple_of(ROW) - count)?.reshape(((), ROW))?;
    Ok(rows.sum(1)?.sum_all()?.read_scalar::<f64>()?.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(values: &[f64]) -> Var {
        Var::from_tensor(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap()
    }

    /// One step on sum(w^2 c), whose gradient is 2 c w.
    fn step(optimiser: &mut Adam, w: &Var, c: &Tensor) -> f64 {
        let loss = (w.as_tensor().sqr().unwrap() * c).unwrap().sum_all().unwrap();
        optimiser.step(&loss.backward().unwrap(), 0.1).unwrap()
    }

    #[test]
    fn agrees_with_the_scalar_recursion() {
        let (start, curvature) = ([3.0, -2.0], [0.5, 4.0]);
        let w = variable(&start);
        let c = Tensor::new(&curvature, &Device::Cpu).unwrap();
        let settings = AdamSettings { weight_decay: 0.01, ..AdamSettings::default() };
        let mut optimiser = Adam::new(vec![("w".into(), w.clone())], settings).unwrap();
        for _ in 0..7 {
            step(&mut optimiser, &w, &c);
        }
        let expected: Vec<f64> = start
            .iter()
            .zip(curvature)
            .map(|(&start, c)| {
                let (mut w, mut m, mut v) = (start, 0.0, 0.0);
                for t in 1..=7 {
                    let g = 2.0 * c * w;
                    m = 0.9 * m + 0.1 * g;
                    v = 0.999 * v + 0.001 * g * g;
                    let (m, v) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
                    w -= 0.1 * (m / (v.sqrt() + 1e-8) + 0.01 * w);
                }
                w
            })
            .collect();
        let found = w.as_tensor().to_vec1::<f64>().unwrap();
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
    }

    #[test]
    fn reports_the_norm_and_clips_to_the_limit() {
        let w = variable(&[3.0, 4.0]);
        let c = Tensor::new(&[0.5, 0.5], &Device::Cpu).unwrap();
        let settings = AdamSettings { max_gradient_norm: Some(1.0), ..AdamSettings::default() };
        let mut optimiser = Adam::new(vec![("w".into(), w.clone())], settings).unwrap();
        assert!((step(&mut optimiser, &w, &c) - 5.0).abs() < 1e-12);
        let mean = optimiser.state().unwrap()["mean.w"].to_vec1::<f64>().unwrap();
        assert!((mean[0] - 0.06).abs() < 1e-12 && (mean[1] - 0.08).abs() < 1e-12, "{mean:?}");
    }

    #[test]
    fn a_restored_optimiser_continues_with_the_same_bytes() {
        let c = Tensor::new(&[0.5, 4.0], &Device::Cpu).unwrap();
        let optimiser = |w: &Var| Adam::new(vec![("w".into(), w.clone())], AdamSettings::default()).unwrap();
        let (w, other) = (variable(&[3.0, -2.0]), variable(&[0.0, 0.0]));
        let mut first = optimiser(&w);
        for _ in 0..3 {
            step(&mut first, &w, &c);
        }
        let mut second = optimiser(&other);
        second.restore(&first.state().unwrap()).unwrap();
        for _ in 0..3 {
            step(&mut first, &w, &c);
        }
        for _ in 0..3 {
            step(&mut second, &other, &c);
        }
        assert_eq!(w.as_tensor().to_vec1::<f64>().unwrap(), other.as_tensor().to_vec1::<f64>().unwrap());
        assert!(optimiser(&variable(&[1.0])).restore(&first.state().unwrap()).is_err());
    }

    #[test]
    fn refuses_a_gradient_that_is_not_finite() {
        let w = variable(&[1.0]);
        let mut optimiser = Adam::new(vec![("w".into(), w.clone())], AdamSettings::default()).unwrap();
        let loss = (w.as_tensor() * f64::NAN).unwrap().sum_all().unwrap();
        assert!(optimiser.step(&loss.backward().unwrap(), 0.1).is_err());
        assert_eq!(w.as_tensor().to_vec1::<f64>().unwrap(), [1.0]);
    }
}
