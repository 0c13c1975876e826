//! Convolutions by cuDNN in TF32, which keeps no neighbourhoods in memory.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    mem::ManuallyDrop,
    rc::Rc,
    sync::Arc,
};

use candle_core::{
    Result,
    cuda_backend::{
        DeviceId,
        cudarc::{
            cudnn::{
                ActivationDescriptor, ConvBackwardFilter, ConvBiasActivationForward, ConvDescriptor,
                ConvForward, Cudnn, CudnnError, FilterDescriptor, TensorDescriptor,
                sys::{
                    cudnnActivationMode_t, cudnnConvolutionBwdFilterAlgo_t, cudnnConvolutionFwdAlgo_t,
                    cudnnConvolutionMode_t, cudnnMathType_t, cudnnNanPropagation_t, cudnnTensorFormat_t,
                },
            },
            driver::{CudaSlice, CudaView, CudaViewMut},
        },
    },
};

use super::{Gpu, Real, conv::Start, size};
use crate::tensor::conv_kernel::Geometry;

const CHANNELS_LAST: cudnnTensorFormat_t = cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
const FORWARD: cudnnConvolutionFwdAlgo_t =
    cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
/// The one whose sums are the same every time.
const OF_WEIGHTS: cudnnConvolutionBwdFilterAlgo_t =
    cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;

/// Images `[B, Y, X, from]`, weights `[to, k, k, from]` and outputs `[B, Y, X, to]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Job {
    pub(super) g: Geometry,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// cuDNN's descriptions of a job.
struct Plan {
    convolution: ConvDescriptor<f32>,
    /// What is done to each number of the result: nothing.
    identity: ActivationDescriptor<f32>,
    images: TensorDescriptor<f32>,
    weights: FilterDescriptor<f32>,
    bias: TensorDescriptor<f32>,
    outputs: TensorDescriptor<f32>,
    room: Room,
    room_of_weights: Room,
}

/// Bytes of working memory, known after the first time.
#[derive(Default)]
struct Room(Cell<Option<usize>>);

type Plans = HashMap<(DeviceId, Job), ManuallyDrop<Rc<Plan>>>;

thread_local! {
    // Handles belong to a thread. They are never destroyed: the driver may be gone by the end of the thread.
    static HANDLES: RefCell<HashMap<DeviceId, ManuallyDrop<Arc<Cudnn>>>> = RefCell::default();
    static PLANS: RefCell<Plans> = RefCell::default();
}

/// The convolution of `images` with weights `[to, k, k, from]`, added to `start`; all numbers are of single precision.
pub(super) fn convolved<T: Real>(
    gpu: &Gpu,
    job: Job,
    images: &CudaView<T>,
    weights: &CudaView<T>,
    start: Option<Start<T>>,
) -> Result<CudaSlice<T>> {
    let plan = Plan::of(gpu, job)?;
    let Plan { convolution: conv, images: x, weights: w, outputs: y, .. } = &*plan;
    let forward = ConvForward { conv, x, w, y };
    let mut room = plan.room.take(gpu, || forward.get_workspace_size(FORWARD))?;
    let mut outputs = gpu.empty::<T>(job.g.batch * job.g.pixels() * job.to)?;
    let (images, weights) = (single(images)?, single(weights)?);
    let there = &raw const outputs;
    // SAFETY: cuDNN may read what it adds to where it writes; here it reads nothing there, for it counts zero times.
    let unread = single(&unsafe { &*there }.as_view())?;
    let mut target = single_mut(&mut outputs)?;
    // SAFETY: the tensors have the job's sizes.
    match start {
        None => unsafe {
            forward.launch(FORWARD, Some(&mut room), (1.0, 0.0), &images, &weights, &mut target)
        },
        Some(Start { bias, images: others }) => {
            let (others, share) = match others {
                Some(others) => (single(others)?, 1.0),
                None => (unread, 0.0),
            };
            let (act, z, bias_of) = (&plan.identity, y, &plan.bias);
            let added = ConvBiasActivationForward { conv, act, x, w, z, bias: bias_of, y };
            let (room, factors, bias) = (Some(&mut room), (1.0, share), single(bias)?);
            unsafe { added.launch(FORWARD, room, factors, &images, &weights, &others, &bias, &mut target) }
        }
    }?;
    Ok(outputs)
}

/// Gradient `[to, k, k, from]` of the weights from that of the outputs, in single precision.
pub(super) fn correlated<T: Real>(
    gpu: &Gpu,
    job: Job,
    images: &CudaView<T>,
    gradient: &CudaView<T>,
) -> Result<CudaSlice<T>> {
    let plan = Plan::of(gpu, job)?;
    let correlation =
        ConvBackwardFilter { conv: &plan.convolution, x: &plan.images, dy: &plan.outputs, dw: &plan.weights };
    let mut room = plan.room_of_weights.take(gpu, || correlation.get_workspace_size(OF_WEIGHTS))?;
    let mut weights = gpu.empty::<T>(job.to * job.g.kernel * job.g.kernel * job.from)?;
    let (images, gradient, mut target) = (single(images)?, single(gradient)?, single_mut(&mut weights)?);
    // SAFETY: as above.
    unsafe { correlation.launch(OF_WEIGHTS, Some(&mut room), (1.0, 0.0), &images, &mut target, &gradient) }?;
    Ok(weights)
}

/// Numbers that are of single precision.
fn single<'a, T>(numbers: &CudaView<'a, T>) -> Result<CudaView<'a, f32>> {
    // SAFETY: any bits are a number, and there are enough of them.
    let numbers = unsafe { numbers.transmute(numbers.len()) };
    numbers.ok_or_else(|| candle_core::Error::Msg("cuDNN is given other numbers than single ones".into()))
}

/// The same, to write to.
fn single_mut<T>(numbers: &mut CudaSlice<T>) -> Result<CudaViewMut<'_, f32>> {
    let count = numbers.len();
    // SAFETY: as above.
    let numbers = unsafe { numbers.transmute_mut(count) };
    numbers.ok_or_else(|| candle_core::Error::Msg("cuDNN is given other numbers than single ones".into()))
}

impl Plan {
    /// The plan of a job, made when the thread first asks for it.
    fn of(gpu: &Gpu, job: Job) -> Result<Rc<Self>> {
        let key = (gpu.device.id(), job);
        if let Some(plan) = PLANS.with_borrow(|plans| plans.get(&key).map(|plan| Rc::clone(plan))) {
            return Ok(plan);
        }
        let plan = Rc::new(Self::new(&handle(gpu)?, job)?);
        PLANS.with_borrow_mut(|plans| plans.insert(key, ManuallyDrop::new(Rc::clone(&plan))));
        Ok(plan)
    }

    fn new(cudnn: &Arc<Cudnn>, Job { g, from, to }: Job) -> Result<Self> {
        let sizes = [g.batch, g.height, g.width, g.kernel, from, to].map(|n| size(n).map(|n| n as i32));
        let [batch, height, width, kernel, from, to] = sizes;
        let (batch, height, width, kernel, from, to) = (batch?, height?, width?, kernel?, from?, to?);
        let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let mut convolution = cudnn.create_conv2d::<f32>([kernel / 2; 2], [1; 2], [1; 2], mode)?;
        convolution.set_math_type(cudnnMathType_t::CUDNN_TENSOR_OP_MATH)?;
        Ok(Self {
            convolution,
            identity: cudnn.create_activation(
                cudnnActivationMode_t::CUDNN_ACTIVATION_IDENTITY,
                cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN,
                0.0,
            )?,
            images: cudnn.create_4d_tensor(CHANNELS_LAST, [batch, from, height, width])?,
            weights: cudnn.create_4d_filter(CHANNELS_LAST, [to, from, kernel, kernel])?,
            bias: cudnn.create_4d_tensor(CHANNELS_LAST, [1, to, 1, 1])?,
            outputs: cudnn.create_4d_tensor(CHANNELS_LAST, [batch, to, height, width])?,
            room: Room::default(),
            room_of_weights: Room::default(),
        })
    }
}

impl Room {
    fn take(
        &self,
        gpu: &Gpu,
        ask: impl FnOnce() -> std::result::Result<usize, CudnnError>,
    ) -> Result<CudaSlice<u8>> {
        let bytes = match self.0.get() {
            Some(bytes) => bytes,
            None => ask()?.max(1),
        };
        self.0.set(Some(bytes));
        gpu.empty(bytes)
    }
}

/// This thread's handle of a device.
fn handle(gpu: &Gpu) -> Result<Arc<Cudnn>> {
    HANDLES.with_borrow_mut(|handles| {
        let device = gpu.device.id();
        if let Some(handle) = handles.get(&device) {
            return Ok(Arc::clone(handle));
        }
        let handle = Cudnn::new(gpu.device.cuda_stream())?;
        handles.insert(device, ManuallyDrop::new(Arc::clone(&handle)));
        Ok(handle)
    })
}
