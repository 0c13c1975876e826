//! Named weights of a network: fixed, free, or fixed with a free low-rank change.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{Tensor, Var};

use super::Adaptation;
use crate::{
    Error, Result,
    compute::Compute,
    rng::Rng,
    tensor::{
        compute_of,
        conv::conv2d,
        layer::{Kept, Layer},
    },
    transfer::Transfer,
};

/// Name, shape and starting value of one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Dotted name.
    pub name: String,
    /// Outputs first.
    pub shape: Vec<usize>,
    /// How it starts.
    pub start: Start,
}

/// Starting value of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// All zero.
    Zero,
    /// Normal with variance 1 / number of inputs.
    Scaled,
}

#[derive(Debug, Clone)]
enum Weight {
    Fixed(Tensor, Arc<Kept>),
    Free(Var),
    /// base + left right, the product reshaped.
    Adapted {
        base: Tensor,
        left: Var,
        right: Var,
    },
}

impl Weight {
    fn fixed(tensor: Tensor) -> Self {
        Self::Fixed(tensor, Arc::default())
    }
}

/// The weights of a network by name.
#[derive(Debug, Clone)]
pub struct Weights {
    weights: BTreeMap<String, Weight>,
}

impl Weights {
    /// Free weights at their starting values.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn start(parameters: &[Parameter], rng: &Rng, compute: &Compute) -> Result<Self> {
        let weight = |parameter: &Parameter| {
            let values = match parameter.start {
                Start::Zero => Tensor::zeros(parameter.shape.as_slice(), compute.dtype, &compute.device)?,
                Start::Scaled => scaled(&parameter.shape, &mut rng.stream(&parameter.name, 0), compute)?,
            };
            Ok((parameter.name.clone(), Weight::Free(Var::from_tensor(&values)?)))
        };
        Ok(Self { weights: parameters.iter().map(weight).collect::<Result<_>>()? })
    }

    /// Fixed weights from stored tensors.
    ///
    /// # Errors
    /// A tensor is missing, superfluous or has another shape; the message names it.
    pub fn fixed(
        parameters: &[Parameter],
        mut tensors: BTreeMap<String, Tensor>,
        compute: &Compute,
    ) -> Result<Self> {
        let weight = |Parameter { name, shape, .. }: &Parameter| {
            let tensor = tensors.remove(name).ok_or_else(|| {
                Error::config(name, "this weight is missing; the file holds another network")
            })?;
            if tensor.dims() != shape.as_slice() {
                let problem = format!("shape {:?} where the network needs {shape:?}", tensor.dims());
                return Err(Error::config(name, problem));
            }
            Ok((name.clone(), Weight::fixed(tensor.to_dtype(compute.dtype)?.transfer(&compute.device)?)))
        };
        let weights = parameters.iter().map(weight).collect::<Result<_>>()?;
        match tensors.into_keys().next() {
            Some(name) => {
                Err(Error::config(name, "the network has no such weight; the file holds another one"))
            }
            None => Ok(Self { weights }),
        }
    }

    /// A copy of which some weights are free, equal in value.
    ///
    /// # Errors
    /// A rank of 0.
    pub fn adapted(&self, adaptation: Adaptation, rng: &Rng) -> Result<Self> {
        if adaptation == Adaptation::LowRank(0) {
            return Err(Error::config("rank", "0 leaves nothing to train; use 1 or more"));
        }
        let weight = |name: &String| {
            let base = self.get(name)?.detach();
            let weight = match adaptation {
                Adaptation::Copy => Weight::Free(Var::from_tensor(&base.copy()?)?),
                Adaptation::LowRank(rank) if base.rank() == 4 => {
                    low_rank(base, rank, &mut rng.stream(name, 0))?
                }
                Adaptation::LowRank(_) => Weight::fixed(base),
            };
            Ok((name.clone(), weight))
        };
        Ok(Self { weights: self.weights.keys().map(weight).collect::<Result<_>>()? })
    }

    /// With one more free weight, which starts at zero.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn with_zeros(mut self, name: &str, shape: &[usize], compute: &Compute) -> Result<Self> {
        let zeros = Var::zeros(shape, compute.dtype, &compute.device)?;
        self.weights.insert(name.into(), Weight::Free(zeros));
        Ok(self)
    }

    /// The value of a weight, tracked if it is free.
    ///
    /// # Errors
    /// An unknown name.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        match self.weights.get(name) {
            Some(Weight::Fixed(tensor, _)) => Ok(tensor.clone()),
            Some(Weight::Free(variable)) => Ok(variable.as_tensor().clone()),
            Some(Weight::Adapted { base, left, right }) => {
                Ok((base + left.as_tensor().matmul(right.as_tensor())?.reshape(base.shape())?)?)
            }
            None => Err(Error::config(name, "the network has no such weight")),
        }
    }

    /// Images or features `[B, Y, X, C]` convolved by the layer `name`.
    ///
    /// # Errors
    /// An unknown name, or another number of channels.
    pub fn convolve(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let Layer { weight, bias, .. } = self.layer(name)?;
        conv2d(x, &weight, Some(&bias))
    }

    /// Vectors `[B, C]` through the linear layer `name`.
    ///
    /// # Errors
    /// An unknown name, or another number of channels.
    pub fn linear(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let Layer { weight, bias, .. } = self.layer(name)?;
        Ok(x.matmul(&weight.t()?)?.broadcast_add(&bias)?)
    }

    /// Weight `name.weight` with bias `name.bias`.
    ///
    /// # Errors
    /// An unknown name.
    pub fn layer(&self, name: &str) -> Result<Layer> {
        let weight = format!("{name}.weight");
        let kept = match self.weights.get(&weight) {
            Some(Weight::Fixed(_, kept)) => Some(kept.clone()),
            _ => None,
        };
        Ok(Layer { weight: self.get(&weight)?, bias: self.get(&format!("{name}.bias"))?, kept })
    }

    /// The free weights.
    pub fn variables(&self) -> Vec<(String, Var)> {
        let mut variables = Vec::new();
        for (name, weight) in &self.weights {
            match weight {
                Weight::Fixed(..) => {}
                Weight::Free(variable) => variables.push((name.clone(), variable.clone())),
                Weight::Adapted { left, right, .. } => {
                    variables.push((format!("{name}.left"), left.clone()));
                    variables.push((format!("{name}.right"), right.clone()));
                }
            }
        }
        variables
    }

    /// Values of all weights, detached.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        self.weights.keys().map(|name| Ok((name.clone(), self.get(name)?.detach()))).collect()
    }
}

/// Adapters whose product starts at zero: left zero, right random.
fn low_rank(base: Tensor, rank: usize, rng: &mut Rng) -> Result<Weight> {
    let compute = compute_of(&base);
    let (outputs, inputs) = (base.dim(0)?, base.elem_count() / base.dim(0)?);
    let left = Var::zeros((outputs, rank), base.dtype(), base.device())?;
    let right = Var::from_tensor(&scaled(&[rank, inputs], rng, &compute)?)?;
    Ok(Weight::Adapted { base, left, right })
}

fn scaled(shape: &[usize], rng: &mut Rng, compute: &Compute) -> Result<Tensor> {
    let inputs: usize = shape[1..].iter().product();
    Ok((rng.normals(shape, compute)? / (inputs.max(1) as f64).sqrt())?)
}
