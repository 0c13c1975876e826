//! Numbers that cross between host and device: the one place where they do, so that they can be counted.

use std::cell::Cell;

use candle_core::{Device, NdArray, Result, Tensor, WithDType};

/// What has crossed, in either direction. On a CPU nothing moves, but it is counted as if it did: no GPU is needed to see how
/// often a step would wait for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Crossings {
    /// Tensors.
    pub tensors: u64,
    /// Numbers in all of them.
    pub numbers: u64,
}

thread_local! {
    static CROSSINGS: Cell<Crossings> = const { Cell::new(Crossings { tensors: 0, numbers: 0 }) };
}

/// What has crossed on this thread so far.
pub fn crossings() -> Crossings {
    CROSSINGS.get()
}

fn count(tensor: &Tensor) {
    let Crossings { tensors, numbers } = crossings();
    CROSSINGS.set(Crossings { tensors: tensors + 1, numbers: numbers + tensor.elem_count() as u64 });
}

/// The ways across, each of which is counted. `clippy.toml` refuses those of the tensor library everywhere else.
pub(crate) trait Transfer {
    /// The tensor on `device`.
    fn transfer(&self, device: &Device) -> Result<Tensor>;

    /// The value of a tensor without axes.
    fn read_scalar<T: WithDType>(&self) -> Result<T>;

    /// The values of a tensor with one axis.
    fn read_list<T: WithDType>(&self) -> Result<Vec<T>>;

    /// The values of a tensor with two axes, row by row.
    fn read_rows<T: WithDType>(&self) -> Result<Vec<Vec<T>>>;
}

#[expect(clippy::disallowed_methods, reason = "here they are counted")]
impl Transfer for Tensor {
    fn transfer(&self, device: &Device) -> Result<Tensor> {
        count(self);
        if self.track_op() {
            // Its gradient comes back the same way.
            count(self);
        }
        self.to_device(device)
    }

    fn read_scalar<T: WithDType>(&self) -> Result<T> {
        count(self);
        self.to_scalar()
    }

    fn read_list<T: WithDType>(&self) -> Result<Vec<T>> {
        count(self);
        self.to_vec1()
    }

    fn read_rows<T: WithDType>(&self) -> Result<Vec<Vec<T>>> {
        count(self);
        self.to_vec2()
    }
}

/// Host values as a tensor on `device`.
pub(crate) fn send(values: impl NdArray, device: &Device) -> Result<Tensor> {
    Tensor::new(values, &Device::Cpu)?.transfer(device)
}
