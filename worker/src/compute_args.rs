//! The flags for a model's arithmetic: device, number format, engines.

use baton_model::{Compute, UnavailableDevice};
use clap::value_parser;

use crate::device_memory::free_memory;

/// Values of `--weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum WeightsFlag {
    /// The fastest on this CPU; bf16 on a GPU.
    #[default]
    Auto,
    /// 8-bit integers, with activations quantized per token on the way. CPU only.
    Int8,
    /// The upper half of a single.
    Bf16,
    /// Single precision.
    F32,
}

/// A model's arithmetic. Engines change no output byte; weights and device do, in the last bits.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Compute")]
pub struct ComputeArgs {
    /// Number format of the weights.
    #[arg(long, value_name = "FORMAT", env = "BATON_WEIGHTS", default_value = "auto")]
    weights: WeightsFlag,
    /// Where the models run: auto (a GPU if there is one), cpu, cuda, or cuda:N. An encoder splits the blocks
    /// of its LLM over several devices. Example: cuda:0,cuda:1
    #[arg(
        long,
        value_name = "DEVICE",
        env = "BATON_DEVICE",
        default_value = "auto",
        value_delimiter = ',',
        value_parser = parse_device,
    )]
    device: Vec<DeviceFlag>,
    /// Single-threaded engines that share a model's work, each with its own copy of the weights; limited by
    /// CPUs and memory. Default: one per CPU; one on a GPU. Of a split LLM: engines of each part.
    #[arg(
        long,
        value_name = "ENGINES",
        env = "BATON_ENGINES",
        value_parser = value_parser!(u16).range(1..=1024),
    )]
    engines: Option<u16>,
}

/// Values of `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFlag {
    /// A GPU if there is one.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl ComputeArgs {
    /// Device and number format, chosen if the flags leave them open, and logged.
    ///
    /// # Errors
    /// The device does not exist, or does not compute in this format, or there are several.
    pub fn compute(&self) -> Result<Compute, UnavailableDevice> {
        match self.device.len() {
            1 => Ok(self.devices()?[0]),
            devices => Err(UnavailableDevice::Several { devices }),
        }
    }

    /// The same of all devices, in order; they have one number format.
    ///
    /// # Errors
    /// A device does not exist, or does not compute in this format, or they are of different kinds.
    pub fn devices(&self) -> Result<Vec<Compute>, UnavailableDevice> {
        let is_cpu = |device: &DeviceFlag| *device == DeviceFlag::Cpu;
        let is_gpu = |device: &DeviceFlag| matches!(device, DeviceFlag::Cuda(_));
        if self.device.len() > 1 && !self.device.iter().all(is_cpu) && !self.device.iter().all(is_gpu) {
            return Err(UnavailableDevice::Mixed);
        }
        self.device.iter().map(|&device| self.compute_on(device)).collect()
    }

    fn compute_on(&self, device: DeviceFlag) -> Result<Compute, UnavailableDevice> {
        let compute = choose(self.weights, device)?;
        let weights = compute.weights_name();
        tracing::info!(device = ?compute.device, weights, "chose device and weights");
        if compute == Compute::CPU_BF16 && Compute::fastest_float_cpu() != compute {
            tracing::warn!(
                "this CPU multiplies f32 faster than bf16, or has no products of bf16, which makes it far \
                 slower; prefer --weights auto"
            );
        }
        Ok(compute)
    }

    /// Engines per model, each of which takes `engine_num_bytes` of the first device's memory: the requested
    /// number, limited by CPUs and memory. A reduced number is logged. Of a split model, each device has so
    /// many.
    #[must_use]
    pub fn engines(&self, devices: &[Compute], engine_num_bytes: u64) -> usize {
        let num_cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let cpus_of_each = (num_cpus / devices.len()).max(1);
        let is_cpu = devices[0].is_cpu();
        let (default, max_by_cpus) = if is_cpu { (cpus_of_each, cpus_of_each) } else { (1, usize::MAX) };
        let memory = free_memory(devices[0]);
        let wanted = self.engines.map_or(default, usize::from);
        let engines = wanted.min(max_by_cpus).min(max_by_memory(memory, engine_num_bytes));
        if engines < wanted {
            tracing::warn!(
                "{wanted} engines are more than there is room for: {num_cpus} CPUs, and {} of free memory \
                 for {} each; using {engines}",
                in_mib(memory.unwrap_or_default()),
                in_mib(engine_num_bytes)
            );
        }
        engines
    }
}

/// Engines that fit into memory while a fifth of it stays free; at least one.
fn max_by_memory(available_num_bytes: Option<u64>, engine_num_bytes: u64) -> usize {
    match available_num_bytes {
        Some(bytes) if engine_num_bytes > 0 => ((bytes / 5 * 4 / engine_num_bytes) as usize).max(1),
        _ => usize::MAX,
    }
}

fn in_mib(num_bytes: u64) -> String {
    format!("{} MiB", num_bytes >> 20)
}

impl WeightsFlag {
    /// The arithmetic of this flag on the CPU.
    #[must_use]
    pub fn on_cpu(self) -> Compute {
        match self {
            WeightsFlag::Auto => Compute::fastest_cpu(),
            WeightsFlag::Int8 => Compute::CPU_INT8,
            WeightsFlag::Bf16 => Compute::CPU_BF16,
            WeightsFlag::F32 => Compute::CPU_F32,
        }
    }
}

fn choose(weights: WeightsFlag, device: DeviceFlag) -> Result<Compute, UnavailableDevice> {
    match (device, weights) {
        (DeviceFlag::Cpu, _) | (DeviceFlag::Auto, WeightsFlag::Int8) => Ok(weights.on_cpu()),
        (DeviceFlag::Auto, _) => choose_cuda(0, weights).or_else(|_| Ok(weights.on_cpu())),
        (DeviceFlag::Cuda(index), _) => choose_cuda(index, weights),
    }
}

fn choose_cuda(index: usize, weights: WeightsFlag) -> Result<Compute, UnavailableDevice> {
    let compute = Compute::cuda(index)?;
    match weights {
        WeightsFlag::Auto | WeightsFlag::Bf16 => Ok(compute),
        WeightsFlag::F32 => Ok(compute.in_f32()),
        WeightsFlag::Int8 => Err(UnavailableDevice::Int8OnCuda),
    }
}

fn parse_device(name: &str) -> Result<DeviceFlag, String> {
    match (name, name.strip_prefix("cuda:").map(str::parse)) {
        ("auto", _) => Ok(DeviceFlag::Auto),
        ("cpu", _) => Ok(DeviceFlag::Cpu),
        ("cuda", _) => Ok(DeviceFlag::Cuda(0)),
        (_, Some(Ok(index))) => Ok(DeviceFlag::Cuda(index)),
        _ => Err("a device is auto, cpu, cuda, or cuda:N with N from 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_bounded_by_cpus_and_by_memory() {
        let args =
            |engines| ComputeArgs { weights: WeightsFlag::Int8, device: vec![DeviceFlag::Cpu], engines };
        let int8 = [Compute::CPU_INT8];
        let num_cpus = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(args(Some(1000)).engines(&int8, 1), num_cpus);
        assert_eq!(args(Some(1000)).engines(&int8, u64::MAX), 1);
        assert_eq!(args(Some(1)).engines(&int8, 1), 1);
        assert_eq!(args(None).engines(&[Compute::CPU_INT8; 2], 1), (num_cpus / 2).max(1));
        assert_eq!(max_by_memory(Some(100), 20), 4);
        assert_eq!(max_by_memory(Some(10), 20), 1);
        assert_eq!((max_by_memory(None, 20), max_by_memory(Some(10), 0)), (usize::MAX, usize::MAX));
    }

    #[test]
    fn devices_are_named_as_users_name_them() {
        assert_eq!(parse_device("cuda:3"), Ok(DeviceFlag::Cuda(3)));
        assert_eq!(parse_device("cpu"), Ok(DeviceFlag::Cpu));
        assert!(parse_device("gpu").is_err() && parse_device("cuda:x").is_err());
    }

    #[test]
    fn several_devices_are_of_one_kind_and_only_some_processes_take_them() {
        use DeviceFlag::{Auto, Cpu, Cuda};
        let args = |device: &[DeviceFlag]| ComputeArgs {
            weights: WeightsFlag::F32,
            device: device.to_vec(),
            engines: None,
        };
        assert_eq!(args(&[Cpu, Cpu]).devices(), Ok(vec![Compute::CPU_F32; 2]));
        assert_eq!(args(&[Cpu, Cpu]).compute(), Err(UnavailableDevice::Several { devices: 2 }));
        assert_eq!(args(&[Cpu]).compute(), Ok(Compute::CPU_F32));
        for mixed in [[Cpu, Cuda(0)], [Auto, Auto], [Cuda(0), Auto]] {
            assert_eq!(args(&mixed).devices(), Err(UnavailableDevice::Mixed));
        }
    }

    #[test]
    fn a_named_cpu_is_chosen_on_any_machine() {
        assert_eq!(choose(WeightsFlag::F32, DeviceFlag::Cpu).unwrap(), Compute::CPU_F32);
        assert_eq!(choose(WeightsFlag::Int8, DeviceFlag::Auto).unwrap(), Compute::CPU_INT8);
    }

    #[test]
    fn a_missing_gpu_is_refused_with_advice() {
        let error = choose(WeightsFlag::Auto, DeviceFlag::Cuda(4000)).unwrap_err();
        assert!(error.to_string().contains("--device cpu"), "{error}");
    }
}
