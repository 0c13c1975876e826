//! Convolution of any odd width as matrix products over zero-padded images, channels last.

use super::{
    parallel::{each_chunk, parts},
    product::{Left, Product, Right, Start},
    scratch::unwritten,
    simd::{Kernel, Real, Vector},
};

/// Sizes of a stack of images `[B, Y, X, C]` under a square kernel of odd width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) kernel: usize,
}

impl Geometry {
    /// Pixels of one image.
    pub(crate) fn pixels(&self) -> usize {
        self.height * self.width
    }

    fn border(&self) -> usize {
        self.kernel / 2
    }

    /// Pixels of a padded row.
    fn row(&self) -> usize {
        self.width + 2 * self.border()
    }

    /// Pixels of a padded image.
    fn padded(&self) -> usize {
        self.row() * (self.height + 2 * self.border())
    }

    /// Images with a border of zeros.
    fn pad<T: Real>(&self, images: &[T]) -> Vec<T> {
        let channels = images.len() / (self.batch * self.pixels());
        let mut padded = vec![T::default(); self.batch * self.padded() * channels];
        let (origin, row, width) =
            (self.border() * (self.row() + 1), self.row() * channels, self.width * channels);
        each_chunk(&mut padded, self.padded() * channels, |image, padded| {
            let image = images[image * self.pixels() * channels..].chunks(width).take(self.height);
            for (target, source) in padded[origin * channels..].chunks_mut(row).zip(image) {
                target[..width].copy_from_slice(source);
            }
        });
        padded
    }
}

/// Weights `[k, k, C, O]`.
pub(crate) struct Arranged<T> {
    pub(crate) values: Vec<T>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

/// Tasks that a change of arrangement is cut into at most.
const TASKS: usize = 8;
/// Numbers of a task at least: waking a thread costs more than moving fewer.
const LEAST: usize = 1 << 13;
/// Outputs of which one cache line each is read or written at a time.
const LINES: usize = 16;

/// Tasks of a change of arrangement of so many numbers.
fn tasks(numbers: usize) -> usize {
    (numbers / LEAST).clamp(1, TASKS)
}

impl<T: Real> Arranged<T> {
    /// From weights `[O, C, k, k]`.
    pub(crate) fn forward(weights: &[T], outputs: usize, inputs: usize) -> Self {
        let (taps, row) = (weights.len() / (outputs * inputs), weights.len() / outputs);
        let mut values = unwritten(weights.len());
        let share = inputs.div_ceil(tasks(weights.len()));
        each_chunk(&mut parts(&mut values, inputs * outputs, share * outputs), 1, |task, planes| {
            for (block, weights) in weights.chunks(LINES * row).enumerate() {
                for (tap, plane) in planes.iter_mut().flat_map(|taps| taps.iter_mut()).enumerate() {
                    for (input, target) in plane.chunks_exact_mut(outputs).enumerate() {
                        let source = (task * share + input) * taps + tap;
                        let target = target[block * LINES..].iter_mut();
                        for (target, weights) in target.zip(weights.chunks_exact(row)) {
                            *target = weights[source];
                        }
                    }
                }
            }
        });
        Self { values, inputs, outputs }
    }

    /// The adjoint of weights `[O, C, k, k]`: inputs and outputs exchanged, kernel turned by 180 degrees.
    pub(crate) fn adjoint(weights: &[T], outputs: usize, inputs: usize) -> Self {
        let (pairs, taps) = (inputs * outputs, weights.len() / (outputs * inputs));
        let mut values = unwritten(weights.len());
        let share = pairs.div_ceil(tasks(weights.len()));
        each_chunk(&mut parts(&mut values, pairs, share), 1, |task, planes| {
            for (tap, plane) in planes.iter_mut().flat_map(|taps| taps.iter_mut()).enumerate() {
                let weights = weights[task * share * taps..].chunks_exact(taps);
                plane.iter_mut().zip(weights).for_each(|(target, weights)| *target = weights[taps - 1 - tap]);
            }
        });
        Self { values, inputs: outputs, outputs: inputs }
    }

    /// Gradient `[O, C, k, k]` of weights from that of their arrangement `[k, k, C, O]`.
    pub(crate) fn restore(gradient: &[T], outputs: usize, inputs: usize) -> Vec<T> {
        let taps = gradient.len() / (outputs * inputs);
        let row = inputs * taps;
        let mut weights = unwritten(gradient.len());
        let share = outputs.div_ceil(tasks(gradient.len())).next_multiple_of(LINES);
        each_chunk(&mut weights, share * row, |task, weights| {
            for (block, weights) in weights.chunks_mut(LINES * row).enumerate() {
                for input in 0..inputs {
                    for tap in 0..taps {
                        let source = (tap * inputs + input) * outputs + task * share + block * LINES;
                        for (weights, value) in weights.chunks_exact_mut(row).zip(&gradient[source..]) {
                            weights[input * taps + tap] = *value;
                        }
                    }
                }
            }
        });
        weights
    }
}

/// Convolves `[B, Y, X, C]` to `output` `[B, Y, X, O]`, zeros outside; `bias` holds O numbers or none.
pub(crate) fn convolve<T: Real>(
    g: &Geometry,
    images: &[T],
    weights: &Arranged<T>,
    bias: &[T],
    output: &mut [T],
) {
    let padded = if g.border() > 0 { g.pad(images) } else { Vec::new() };
    let images = if g.border() > 0 { &padded } else { images };
    each_chunk(output, g.width * weights.outputs, |row, output| {
        let first = row / g.height * g.padded() + row % g.height * g.row();
        let images = &images[first * weights.inputs..];
        T::vectorize(Row { g, images, weights, bias, output });
    });
}

/// One row of outputs.
struct Row<'a, T> {
    g: &'a Geometry,
    images: &'a [T],
    weights: &'a Arranged<T>,
    bias: &'a [T],
    output: &'a mut [T],
}

impl<T: Real> Kernel<T> for Row<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Arranged { ref values, inputs, outputs } = *self.weights;
        // The taps of one row of the kernel and their channels are contiguous, in the image as in the weights.
        let run = self.g.kernel * inputs;
        let product = Product {
            a: Left { values: self.images, row: inputs, column: 1, run: self.g.row() * inputs },
            b: Right { values, row: outputs, run: run * outputs },
            rows: self.g.width,
            columns: outputs,
            run,
            runs: self.g.kernel,
        };
        let start = if self.bias.is_empty() { Start::Zero } else { Start::Bias(self.bias) };
        product.write::<V>(start, self.output, outputs);
    }
}

/// Gradient with respect to the weights, `[k, k, C, O]`, from images `[B, Y, X, C]` and the outputs' gradient
/// `[B, Y, X, O]`.
pub(crate) fn correlate<T: Real>(g: &Geometry, images: &[T], outputs: &[T]) -> Vec<T> {
    let pixels = g.batch * g.pixels();
    let [inputs, outputs_count] = [images.len(), outputs.len()].map(|length| length / pixels);
    let padded = if g.border() > 0 { g.pad(images) } else { Vec::new() };
    let images = if g.border() > 0 { &padded } else { images };
    let mut gradient = vec![T::default(); g.kernel * g.kernel * inputs * outputs_count];
    // Some rows (tap, input) of the gradient.
    const ROWS: usize = 48;
    each_chunk(&mut gradient, g.kernel * inputs * outputs_count, |tap_row, gradient| {
        each_chunk(gradient, ROWS * outputs_count, |part, gradient| {
            let images = &images[tap_row * g.row() * inputs + part * ROWS..];
            T::vectorize(Taps { g, images, outputs, channels: [inputs, outputs_count], gradient });
        });
    });
    gradient
}

/// Some rows of the gradient of the weights, as many as `gradient` holds.
struct Taps<'a, T> {
    g: &'a Geometry,
    images: &'a [T],
    outputs: &'a [T],
    channels: [usize; 2],
    gradient: &'a mut [T],
}

impl<T: Real> Kernel<T> for Taps<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Self { g, images, outputs, channels: [inputs, columns], gradient } = self;
        // Rows of pixels whose numbers stay in the cache.
        const PIXELS: usize = 512;
        let step = (PIXELS / g.width).max(1);
        for (image, outputs) in outputs.chunks(g.pixels() * columns).enumerate() {
            for (part, outputs) in outputs.chunks(step * g.width * columns).enumerate() {
                let first = (image * g.padded() + part * step * g.row()) * inputs;
                let product = Product {
                    a: Left { values: &images[first..], row: 1, column: inputs, run: g.row() * inputs },
                    b: Right { values: outputs, row: columns, run: g.width * columns },
                    rows: gradient.len() / columns,
                    columns,
                    run: g.width,
                    runs: outputs.len() / (g.width * columns),
                };
                product.write::<V>(Start::Output, gradient, columns);
            }
        }
    }
}

/// Sums `[C]` of numbers `[P, C]` over P.
pub(crate) fn channel_sums<T: Real>(values: &[T], channels: usize) -> Vec<T> {
    // Partial sums over this many numbers are added in order.
    const PART: usize = 1 << 14;
    let length = (PART / channels).max(1) * channels;
    let mut parts = vec![T::default(); values.len().div_ceil(length) * channels];
    each_chunk(&mut parts, channels, |part, sums| {
        let values = &values[part * length..];
        T::vectorize(Sums { values: &values[..length.min(values.len())], sums });
    });
    let mut sums = vec![T::default(); channels];
    for part in parts.chunks(channels) {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += *part);
    }
    sums
}

struct Sums<'a, T> {
    values: &'a [T],
    sums: &'a mut [T],
}

impl<T: Real> Kernel<T> for Sums<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let channels = self.sums.len();
        for first in (0..channels).step_by(V::LANES) {
            let mut sum = V::splat(T::default());
            for pixel in self.values.chunks_exact(channels) {
                // SAFETY: so many channels of the pixel are left.
                sum = unsafe { V::load_first(pixel.as_ptr().add(first), channels - first) }.plus(sum);
            }
            // SAFETY: so many sums are left.
            unsafe { sum.store_first(self.sums.as_mut_ptr().add(first), channels - first) };
        }
    }
}
