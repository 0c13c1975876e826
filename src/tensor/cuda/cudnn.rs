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
                ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnError, FilterDescriptor,
                TensorDescriptor,
                sys::{
                    cudnnConvolutionBwdFilterAlgo_t, cudnnConvolutionFwdAlgo_t, cudnnConvolutionMode_t,
                    cudnnMathType_t, cudnnTensorFormat_t,
                },
            },
            driver::{CudaSlice, CudaView},
        },
    },
};

use super::{Gpu, size};
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
    images: TensorDescriptor<f32>,
    weights: FilterDescriptor<f32>,
    outputs: TensorDescriptor<f32>,
    room: Room,
    room_of_weights: Room,
}

/// Bytes of working memory, known after the first time.
#[derive(Default)]
struct Room(Cell<Option<usize>>);

thread_local! {
    // Handles belong to a thread. They are never destroyed: the driver may be gone by the end of the thread.
    static HANDLES: RefCell<HashMap<DeviceId, ManuallyDrop<Arc<Cudnn>>>> = RefCell::default();
    static PLANS: RefCell<HashMap<(DeviceId, Job), ManuallyDrop<Rc<Plan>>>> = RefCell::default();
}

/// Adds the convolution of `images` with `weights` to `start` times `outputs`.
pub(super) fn convolve(
    gpu: &Gpu,
    job: Job,
    images: &CudaView<f32>,
    weights: &CudaSlice<f32>,
    start: f32,
    outputs: &mut CudaSlice<f32>,
) -> Result<()> {
    let plan = Plan::of(gpu, job)?;
    let convolution =
        ConvForward { conv: &plan.convolution, x: &plan.images, w: &plan.weights, y: &plan.outputs };
    let mut room = plan.room.take(gpu, || convolution.get_workspace_size(FORWARD))?;
    // SAFETY: the callers allocate tensors of the job's sizes.
    Ok(unsafe { convolution.launch(FORWARD, Some(&mut room), (1.0, start), images, weights, outputs) }?)
}

/// Gradient `[to, k, k, from]` of the weights from that of the outputs.
pub(super) fn correlated(
    gpu: &Gpu,
    job: Job,
    images: &CudaView<f32>,
    gradient: &CudaView<f32>,
) -> Result<CudaSlice<f32>> {
    let plan = Plan::of(gpu, job)?;
    let correlation =
        ConvBackwardFilter { conv: &plan.convolution, x: &plan.images, dy: &plan.outputs, dw: &plan.weights };
    let mut room = plan.room_of_weights.take(gpu, || correlation.get_workspace_size(OF_WEIGHTS))?;
    let mut weights = gpu.empty::<f32>(job.to * job.g.kernel * job.g.kernel * job.from)?;
    // SAFETY: as above.
    unsafe { correlation.launch(OF_WEIGHTS, Some(&mut room), (1.0, 0.0), images, &mut weights, gradient) }?;
    Ok(weights)
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
            images: cudnn.create_4d_tensor(CHANNELS_LAST, [batch, from, height, width])?,
            weights: cudnn.create_4d_filter(CHANNELS_LAST, [to, from, kernel, kernel])?,
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
