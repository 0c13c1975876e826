//! Many variables as one flat tensor, so that an optimiser's step is a few long loops and not thousands of short ones.

use candle_core::{Tensor, Var};

use crate::Result;

/// Named variables of one precision and device in a fixed order.
#[derive(Debug, Clone)]
pub(crate) struct Packing {
    variables: Vec<(String, Var)>,
}

impl Packing {
    /// The order in which `variables` are given.
    pub(crate) fn new(variables: Vec<(String, Var)>) -> Self {
        Self { variables }
    }

    /// What `tensor` gives for each variable, one after the other in a flat tensor.
    pub(crate) fn packed(&self, tensor: impl Fn(&str, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let flat = |(name, variable): &(String, Var)| {
            Ok(tensor(name, variable.as_tensor())?.detach().flatten_all()?.contiguous()?)
        };
        let flat = self.variables.iter().map(flat).collect::<Result<Vec<_>>>()?;
        match flat.as_slice() {
            // `cat` would share its memory with the variable.
            [only] => Ok(only.copy()?),
            several => Ok(Tensor::cat(several, 0)?),
        }
    }

    /// The variables' values, flat.
    pub(crate) fn values(&self) -> Result<Tensor> {
        self.packed(|_, value| Ok(value.clone()))
    }

    /// The parts of a flat tensor in the variables' shapes.
    pub(crate) fn parts(&self, flat: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let mut first = 0;
        let part = |(name, variable): &(String, Var)| {
            let count = variable.elem_count();
            let part = flat.narrow(0, first, count)?.reshape(variable.shape())?;
            first += count;
            Ok((name.clone(), part))
        };
        self.variables.iter().map(part).collect()
    }

    /// Sets the variables to the parts of a flat tensor.
    pub(crate) fn set(&self, flat: &Tensor) -> Result<()> {
        for ((_, variable), (_, part)) in self.variables.iter().zip(self.parts(flat)?) {
            variable.set(&part)?;
        }
        Ok(())
    }
}
