//! A prior for images larger than its network: overlapping tiles whose denoised images are blended.

use std::sync::Arc;

use candle_core::{Tensor, Var};
use rayon::prelude::*;

use super::{Adaptation, Denoiser, Trainable};
use crate::{Error, Result, compute::Compute, rng::Rng, transfer::send};

/// Tiles of a plane that pass through the network together on a thread of the CPU: always as many, so that results do not depend
/// on the number of threads.
const PART: usize = 8;
/// The same on a GPU, where threads do not wait for each other's tensors, so one of them does all the work.
const LARGE_PART: usize = 128;
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
    /// Tiles of the prior's own shape that overlap by at least `overlap` pixels, on images of `shape` Z, Y, X
    /// of `compute`.
    ///
    /// # Errors
    /// An image smaller than a tile, tiles of several planes, or an overlap of more than half a tile.
    pub fn new(tile: Box<D>, shape: [usize; 3], overlap: usize, compute: &Compute) -> Result<Self> {
        let layout = Arc::new(Tiling::new(tile.shape(), shape, overlap, compute)?);
        Ok(Self { tile, planes: shape[0], layout })
    }

    /// Number of tiles of an image, all planes together.
    pub fn tiles(&self) -> usize {
        self.planes * self.layout.count()
    }

    /// Denoised plane `[1, 1, Y, X]` at noise level `[1]`.
    fn plane(&self, noisy: &Tensor, level: &Tensor) -> Result<Tensor> {
        let tiles = self.layout.cut(noisy)?;
        let count = tiles.dim(0)?;
        let levels = level.broadcast_as(count)?.contiguous()?;
        let on_cpu = noisy.device().is_cpu();
        let part = if on_cpu { PART } else { LARGE_PART };
        let denoise = |start: usize| {
            let size = part.min(count - start);
            self.tile.denoise(&tiles.narrow(0, start, size)?, &levels.narrow(0, start, size)?)
        };
        let starts: Vec<usize> = (0..count).step_by(part).collect();
        let denoised: Vec<Tensor> = match on_cpu {
            true => starts.into_par_iter().map(denoise).collect::<Result<_>>()?,
            false => starts.into_iter().map(denoise).collect::<Result<_>>()?,
        };
        self.layout.blend(&Tensor::cat(&denoised, 0)?)
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
#[derive(Debug)]
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

    /// Which pixel of the image each pixel of the tiles shows, one tile after the other.
    fn pixels(&self, compute: &Compute) -> Result<Tensor> {
        let tiles = self.starts.iter().zip(&self.weights);
        let pixels: Vec<u32> =
            tiles.flat_map(|(&start, weights)| (start..start + weights.len()).map(|i| i as u32)).collect();
        Ok(send(pixels, &compute.device)?)
    }

    /// The weight of each of them.
    fn weights(&self, compute: &Compute) -> Result<Tensor> {
        let weights = self.weights.concat();
        let count = weights.len();
        compute.tensor(weights, &[count])
    }
}

/// A weight that falls smoothly towards the edges of a tile but never to 0.
fn rise(pixel: usize, tile: usize) -> f64 {
    (std::f64::consts::PI * (pixel as f64 + 0.5) / tile as f64).sin().powi(2)
}

/// How planes are cut into tiles, and tiles made planes again. On the way the tiles lie side by side, as one image without
/// overlaps.
#[derive(Debug)]
struct Tiling {
    /// Pixels of a plane along Y and X.
    shape: [usize; 2],
    /// Pixels of a tile.
    tile: [usize; 2],
    /// Tiles along Y and X.
    grid: [usize; 2],
    /// Which row and which column of the plane each row and column of the tiles shows.
    pixels: [Tensor; 2],
    /// Their weights, `[rows, 1]` and `[columns]`.
    weights: [Tensor; 2],
}

impl Tiling {
    fn new(
        [planes, height, width]: [usize; 3],
        shape: [usize; 3],
        overlap: usize,
        compute: &Compute,
    ) -> Result<Self> {
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
        let [rows, columns] = [Cuts::new(shape[1], height, overlap), Cuts::new(shape[2], width, overlap)];
        let grid = [rows.starts.len(), columns.starts.len()];
        if grid.iter().product::<usize>().saturating_mul(shape[0]) > MOST_TILES {
            return refuse(format!("{shape:?} pixels need more than {MOST_TILES} tiles; cut the data"));
        }
        Ok(Self {
            shape: [shape[1], shape[2]],
            tile: [height, width],
            grid,
            pixels: [rows.pixels(compute)?, columns.pixels(compute)?],
            weights: [rows.weights(compute)?.unsqueeze(1)?, columns.weights(compute)?],
        })
    }

    fn count(&self) -> usize {
        self.grid.iter().product()
    }

    /// Tiles `[T, 1, h, w]` of a plane `[1, 1, Y, X]`.
    fn cut(&self, plane: &Tensor) -> Result<Tensor> {
        let ([down, across], [height, width]) = (self.grid, self.tile);
        let [rows, columns] = &self.pixels;
        let side_by_side = plane.contiguous()?.index_select(rows, 2)?.index_select(columns, 3)?;
        let tiles = side_by_side.reshape((down, height, across, width))?.transpose(1, 2)?;
        Ok(tiles.contiguous()?.reshape((down * across, 1, height, width))?)
    }

    /// The plane `[1, 1, Y, X]` of tiles `[T, 1, h, w]`.
    fn blend(&self, tiles: &Tensor) -> Result<Tensor> {
        let ([down, across], [height, width]) = (self.grid, self.tile);
        let side_by_side = tiles.reshape((down, across, height, width))?.transpose(1, 2)?.contiguous()?;
        let side_by_side = side_by_side.reshape((down * height, across * width))?;
        let [down, across] = &self.weights;
        let weighted = side_by_side.broadcast_mul(down)?.broadcast_mul(across)?;
        let [rows, columns] = &self.pixels;
        let nothing = |shape| Tensor::zeros(shape, tiles.dtype(), tiles.device());
        let plane = nothing((self.shape[0], weighted.dim(1)?))?.index_add(rows, &weighted, 0)?;
        let plane = nothing((self.shape[0], self.shape[1]))?.index_add(columns, &plane, 1)?;
        Ok(plane.unsqueeze(0)?.unsqueeze(0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
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
            let tiled = Tiled::new(Box::new(pixels(side, &compute)), shape, 4, &compute).unwrap();
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
        let tiled = Tiled::new(Box::new(network), [1, 24, 20], 4, &compute).unwrap();
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
        assert!(Tiled::new(tile(), [1, 15, 30], 4, &compute).is_err());
        assert!(Tiled::new(tile(), [1, 30, 30], 9, &compute).is_err());
        assert!(Tiled::new(Box::new(pixels([2, 16, 16], &compute)), [2, 30, 30], 4, &compute).is_err());
        let tiled = Tiled::new(tile(), [1, 30, 30], 4, &compute).unwrap();
        let wrong = Tensor::zeros((1, 1, 30, 29), compute.dtype, &compute.device).unwrap();
        assert!(tiled.denoise(&wrong, &Tensor::ones(1, compute.dtype, &compute.device).unwrap()).is_err());
    }
}
