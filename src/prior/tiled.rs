//! A prior for images larger than its network: overlapping tiles whose denoised images are blended.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor, Var, WithDType, bail};
use rayon::prelude::*;

use super::{Adaptation, Denoiser, Trainable};
use crate::{Error, Result, rng::Rng, transfer::Transfer};

/// Tiles of a plane that pass through the network together: always as many, so that results do not depend on the number
/// of threads.
const PART: usize = 8;
/// Largest number of tiles of one image.
const MOST_TILES: usize = 1 << 20;

/// A prior of `[1, h, w]` images as one of `[Z, Y, X]` images: every plane is cut into overlapping tiles, and the denoised
/// tiles are added with smooth weights that sum to 1 in every pixel, as in MultiDiffusion (Bar-Tal et al. 2023). Planes
/// are independent of each other.
///
/// Noise comes from the solver for the whole image, so the layout of the tiles does not change it.
#[derive(Debug, Clone)]
pub struct Tiled<D: ?Sized> {
    tile: Box<D>,
    planes: usize,
    layout: Arc<Tiling>,
}

impl<D: Denoiser + ?Sized> Tiled<D> {
    /// Tiles of the prior's own shape that overlap by at least `overlap` pixels, on images of `shape` Z, Y, X.
    ///
    /// # Errors
    /// An image smaller than a tile, tiles of several planes, or an overlap of more than half a tile.
    pub fn new(tile: Box<D>, shape: [usize; 3], overlap: usize) -> Result<Self> {
        let layout = Arc::new(Tiling::new(tile.shape(), shape, overlap)?);
        Ok(Self { tile, planes: shape[0], layout })
    }

    /// Number of tiles of an image, all planes together.
    pub fn tiles(&self) -> usize {
        self.planes * self.layout.count()
    }

    /// Denoised plane `[1, 1, Y, X]` at noise level `[1]`.
    fn plane(&self, noisy: &Tensor, level: &Tensor) -> Result<Tensor> {
        let tiles = self.layout.cut(noisy)?.transfer(noisy.device())?;
        let count = tiles.dim(0)?;
        let levels = level.broadcast_as(count)?.contiguous()?;
        let denoise = |start: usize| {
            let size = PART.min(count - start);
            self.tile.denoise(&tiles.narrow(0, start, size)?, &levels.narrow(0, start, size)?)
        };
        let starts: Vec<usize> = (0..count).step_by(PART).collect();
        let denoised = starts.into_par_iter().map(denoise).collect::<Result<Vec<_>>>()?;
        Ok(self.layout.blend(&Tensor::cat(&denoised, 0)?)?.transfer(noisy.device())?)
    }
}

impl<D: Denoiser + ?Sized> Denoiser for Tiled<D> {
    /// One plane after the other, so that no more than the tiles of a plane are in memory at once.
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        let batch = noisy.dim(0)?;
        let shape = self.shape();
        let [z, y, x] = shape;
        if noisy.dims() != [batch, z, y, x] {
            let found = noisy.dims().to_vec();
            return Err(Error::Shape { what: "image for the prior", expected: vec![batch, z, y, x], found });
        }
        let levels = noise_level.broadcast_as(batch)?;
        let planes = noisy.reshape((batch * z, 1, y, x))?;
        let denoised = (0..batch * z)
            .map(|plane| self.plane(&planes.narrow(0, plane, 1)?, &levels.narrow(0, plane / z, 1)?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&denoised, 0)?.reshape((batch, z, y, x))?)
    }

    fn shape(&self) -> [usize; 3] {
        let [y, x] = self.layout.shape;
        [self.planes, y, x]
    }

    fn noise_range(&self) -> (f64, f64) {
        self.tile.noise_range()
    }

    fn data_std(&self) -> f64 {
        self.tile.data_std()
    }

    fn tile(&self) -> Option<Box<dyn Denoiser + '_>> {
        Some(Box::new(&*self.tile))
    }

    fn trainable(&self, adaptation: Adaptation, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        let tile = self.tile.trainable(adaptation, rng)?;
        Ok(Box::new(Tiled { tile, planes: self.planes, layout: Arc::clone(&self.layout) }))
    }
}

impl Trainable for Tiled<dyn Trainable> {
    fn variables(&self) -> Vec<(String, Var)> {
        self.tile.variables()
    }
}

/// Where tiles lie along one axis.
#[derive(Debug, Clone, PartialEq)]
struct Cuts {
    /// First pixel of each tile.
    starts: Vec<usize>,
    /// Weight of each pixel of each tile; those of an image pixel sum to 1.
    weights: Vec<Vec<f64>>,
}

impl Cuts {
    /// As few tiles as overlap enough, evenly spread.
    fn new(image: usize, tile: usize, overlap: usize) -> Self {
        let steps = (image - tile).div_ceil(tile - overlap);
        let starts: Vec<usize> = (0..=steps).map(|i| i * (image - tile) / steps.max(1)).collect();
        let mut total = vec![0.0; image];
        for &start in &starts {
            (0..tile).for_each(|i| total[start + i] += rise(i, tile));
        }
        let weights =
            starts.iter().map(|start| (0..tile).map(|i| rise(i, tile) / total[start + i]).collect());
        Self { weights: weights.collect(), starts }
    }
}

/// A weight that falls smoothly towards the edges of a tile but never to 0.
fn rise(pixel: usize, tile: usize) -> f64 {
    (std::f64::consts::PI * (pixel as f64 + 0.5) / tile as f64).sin().powi(2)
}

/// How planes are cut into tiles.
#[derive(Debug, Clone, PartialEq)]
struct Tiling {
    shape: [usize; 2],
    tile: [usize; 2],
    rows: Cuts,
    columns: Cuts,
}

impl Tiling {
    fn new([planes, height, width]: [usize; 3], shape: [usize; 3], overlap: usize) -> Result<Self> {
        let refuse = |problem: String| Err(Error::config("prior", problem));
        if planes != 1 || shape[1] < height || shape[2] < width {
            return refuse(format!(
                "tiles of {planes} x {height} x {width} do not fit into {shape:?} pixels"
            ));
        }
        if 2 * overlap > height.min(width) {
            return refuse(format!(
                "tiles of {height} x {width} cannot overlap by {overlap}; use at most half"
            ));
        }
        let tiling = Self {
            shape: [shape[1], shape[2]],
            tile: [height, width],
            rows: Cuts::new(shape[1], height, overlap),
            columns: Cuts::new(shape[2], width, overlap),
        };
        if tiling.count().saturating_mul(shape[0]) > MOST_TILES {
            return refuse(format!("{shape:?} pixels need more than {MOST_TILES} tiles; cut the data"));
        }
        Ok(tiling)
    }

    fn count(&self) -> usize {
        self.rows.starts.len() * self.columns.starts.len()
    }

    /// Tiles `[T, 1, h, w]` of a plane `[1, 1, Y, X]`.
    fn cut(self: &Arc<Self>, image: &Tensor) -> Result<Tensor> {
        let cut = Move { layout: Arc::clone(self), back: false };
        Ok(image.transfer(&Device::Cpu)?.contiguous()?.apply_op1(cut)?)
    }

    /// The plane `[1, 1, Y, X]` of weighted tiles `[T, 1, h, w]`.
    fn blend(self: &Arc<Self>, tiles: &Tensor) -> Result<Tensor> {
        let [height, width] = self.tile;
        let mut weights = Vec::with_capacity(self.count() * height * width);
        for row in &self.rows.weights {
            for column in &self.columns.weights {
                weights.extend(row.iter().flat_map(|y| column.iter().map(move |x| y * x)));
            }
        }
        let weights = Tensor::from_vec(weights, (self.count(), 1, height, width), &Device::Cpu)?;
        let weighted = (tiles.transfer(&Device::Cpu)? * weights.to_dtype(tiles.dtype())?)?;
        Ok(weighted.contiguous()?.apply_op1(Move { layout: Arc::clone(self), back: true })?)
    }

    /// Calls `each` with the first value of every row of every tile, among the tiles' values and among the image's.
    fn each_row(&self, mut each: impl FnMut(usize, usize)) {
        let ([_, columns], [height, width]) = (self.shape, self.tile);
        let mut from = 0;
        for &top in &self.rows.starts {
            for &left in &self.columns.starts {
                for row in 0..height {
                    each(from, (top + row) * columns + left);
                    from += width;
                }
            }
        }
    }
}

/// Copies a plane into tiles, or adds tiles up to a plane: each is the other's adjoint.
struct Move {
    layout: Arc<Tiling>,
    back: bool,
}

impl Move {
    fn run<T: WithDType>(&self, values: &[T], layout: &Layout) -> candle_core::Result<Vec<T>> {
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("tiles need contiguous images") };
        let (source, width) = (&values[start..end], self.layout.tile[1]);
        let mut moved = vec![T::zero(); self.target().elem_count()];
        self.layout.each_row(|tile, pixel| {
            if self.back {
                let sums = moved[pixel..pixel + width].iter_mut();
                sums.zip(&source[tile..tile + width]).for_each(|(sum, value)| *sum += *value);
            } else {
                moved[tile..tile + width].copy_from_slice(&source[pixel..pixel + width]);
            }
        });
        Ok(moved)
    }

    /// Shape of the result.
    fn target(&self) -> Shape {
        let ([y, x], [height, width]) = (self.layout.shape, self.layout.tile);
        match self.back {
            true => Shape::from((1, 1, y, x)),
            false => Shape::from((self.layout.count(), 1, height, width)),
        }
    }
}

impl CustomOp1 for Move {
    fn name(&self) -> &'static str {
        "tiles"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match storage {
            CpuStorage::F32(values) => CpuStorage::F32(self.run(values, layout)?),
            CpuStorage::F64(values) => CpuStorage::F64(self.run(values, layout)?),
            _ => bail!("tiles need f32 or f64"),
        };
        Ok((storage, self.target()))
    }

    fn bwd(&self, argument: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let adjoint = Self { layout: Arc::clone(&self.layout), back: !self.back };
        let moved = gradient.contiguous()?.apply_op1_no_bwd(&adjoint)?;
        Ok(Some(moved.reshape(argument.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compute::Compute,
        prior::{
            gaussian::Gaussian,
            unet::{Architecture, UNet},
        },
        tensor::value_and_gradient,
    };

    fn pixels(shape: [usize; 3], compute: &Compute) -> Gaussian {
        let count = shape.iter().product();
        Gaussian::diagonal(vec![0.3; count], vec![0.4; count], shape, compute).unwrap()
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        difference.to_dtype(candle_core::DType::F64).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn weights_sum_to_one_and_tiles_overlap_enough() {
        for (image, tile, overlap) in [(64, 64, 16), (65, 64, 16), (200, 64, 16), (640, 64, 0), (70, 32, 16)]
        {
            let cuts = Cuts::new(image, tile, overlap);
            let mut total = vec![0.0; image];
            for (start, weights) in cuts.starts.iter().zip(&cuts.weights) {
                weights.iter().enumerate().for_each(|(i, weight)| total[start + i] += weight);
            }
            assert!(total.iter().all(|sum| (sum - 1.0).abs() < 1e-12), "{image} {tile} {overlap}");
            assert!(cuts.starts.windows(2).all(|pair| pair[0] + tile >= pair[1] + overlap), "{cuts:?}");
            assert_eq!(cuts.starts.last(), Some(&(image - tile)));
        }
    }

    #[test]
    fn one_tile_and_four_give_what_the_whole_gives_where_pixels_are_independent() {
        let compute = Compute::cpu_f64();
        let shape = [3, 24, 20];
        let noisy = Rng::new(1).normals(&[2, 3, 24, 20], &compute).unwrap();
        let level = compute.tensor(vec![0.5, 2.0], &[2]).unwrap();
        let whole = pixels(shape, &compute).denoise(&noisy, &level).unwrap();
        for (side, tiles) in [([1, 24, 20], 3), ([1, 16, 14], 12)] {
            let tiled = Tiled::new(Box::new(pixels(side, &compute)), shape, 4).unwrap();
            assert_eq!(tiled.tiles(), tiles);
            let denoised = tiled.denoise(&noisy, &level).unwrap();
            assert!(largest_difference(&denoised, &whole) < 1e-12);
        }
    }

    #[test]
    fn gradients_pass_through_tiles_to_image_and_weights() {
        let compute = Compute::cpu_f64();
        let architecture = Architecture {
            pixels: 16,
            widths: vec![4, 4],
            blocks: vec![1, 1],
            embedding: 4,
            groups: 2,
            ..Architecture::default()
        };
        let network = UNet::new(architecture, &Rng::new(2), &compute).unwrap();
        let mut rng = Rng::new(3);
        let tiled = Tiled::new(Box::new(network), [1, 24, 20], 4).unwrap();
        let trainable = tiled.trainable(Adaptation::Copy, &mut rng).unwrap();
        // The last layer starts at zero; other weights make the network more than a scaling.
        for (_, variable) in trainable.variables() {
            variable.set(&(rng.normals(variable.dims(), &compute).unwrap() * 0.2).unwrap()).unwrap();
        }
        let x = rng.normals(&[1, 1, 24, 20], &compute).unwrap();
        let level = compute.tensor(vec![0.7], &[1]).unwrap();
        let weight = rng.normals(&[1, 1, 24, 20], &compute).unwrap();
        let value = |x: &Tensor| -> Result<Tensor> {
            Ok((trainable.denoise(x, &level)? * &weight)?.flatten_from(1)?.sum(1)?)
        };
        let (_, gradient) = value_and_gradient(&x, value).unwrap();
        let direction = rng.normals(&[1, 1, 24, 20], &compute).unwrap();
        let at = |t: f64| {
            let moved = (&x + (&direction * t).unwrap()).unwrap();
            value(&moved).unwrap().to_vec1::<f64>().unwrap()[0]
        };
        let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
        let expected = (gradient * direction).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        assert!((slope / expected - 1.0).abs() < 1e-6, "{slope} {expected}");
        let gradients = value(&x).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(
            trainable.variables().iter().all(|(_, variable)| gradients.get(variable.as_tensor()).is_some())
        );
    }

    #[test]
    fn tiles_that_do_not_fit_are_refused() {
        let compute = Compute::cpu();
        let tile = || Box::new(pixels([1, 16, 16], &compute));
        assert!(Tiled::new(tile(), [1, 15, 30], 4).is_err());
        assert!(Tiled::new(tile(), [1, 30, 30], 9).is_err());
        assert!(Tiled::new(Box::new(pixels([2, 16, 16], &compute)), [2, 30, 30], 4).is_err());
        let tiled = Tiled::new(tile(), [1, 30, 30], 4).unwrap();
        let wrong = Tensor::zeros((1, 1, 30, 29), compute.dtype, &compute.device).unwrap();
        assert!(tiled.denoise(&wrong, &Tensor::ones(1, compute.dtype, &compute.device).unwrap()).is_err());
    }
}
