//! Safetensors files, one tensor in memory at a time.
//!
//! The format is an 8-byte little-endian header length, a JSON header with name, dtype, shape and offsets of
//! each tensor, and the tensors' bytes. The `safetensors` crate owns the header and its checks. This file
//! adds seeking, so converting a checkpoint needs memory only for its largest tensor.
//!
//! A matrix may be stored in int8 with a scale for each row: `NAME` I8 `[rows, columns]` beside `NAME.scales`
//! F32 `[rows]`. Readers of float tensors get their product, in f32.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::file::io_error;
use crate::{BundleError, WeightDtype};

/// No real header is larger; a larger length means that the file is something else.
const MAX_HEADER_NUM_BYTES: u64 = 100_000_000;
const HEADER_LENGTH_NUM_BYTES: u64 = 8;
/// The suffix of the name of an int8 matrix's scales, after the matrix's name.
const SCALES_SUFFIX: &str = ".scales";

impl From<WeightDtype> for Dtype {
    fn from(dtype: WeightDtype) -> Self {
        match dtype {
            WeightDtype::F32 => Self::F32,
            WeightDtype::Bf16 => Self::BF16,
            WeightDtype::F16 => Self::F16,
        }
    }
}

impl WeightDtype {
    /// A number, rounded as this type stores it.
    pub(crate) fn rounded(self, number: f32) -> f32 {
        match self {
            Self::F32 => number,
            Self::Bf16 => bf16::from_f32(number).to_f32(),
            Self::F16 => f16::from_f32(number).to_f32(),
        }
    }
}

/// An open safetensors file whose header has been read and checked.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    file: File,
    header: Metadata,
    data_start: u64,
}

impl SafetensorsFile {
    /// Reads the header and checks it against the file's size; no tensor is read.
    ///
    /// # Errors
    /// The file cannot be read, or is not a complete safetensors file.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let broken = |problem: String| BundleError::Safetensors { path: path.to_owned(), problem };
        let file = File::open(path).map_err(io_error("open", path))?;
        let file_num_bytes = file.metadata().map_err(io_error("read", path))?.len();
        let mut length = [0; HEADER_LENGTH_NUM_BYTES as usize];
        file.read_exact_at(&mut length, 0).map_err(|_| broken("it has no header".to_owned()))?;
        let header_num_bytes = u64::from_le_bytes(length);
        let data_start = header_num_bytes.saturating_add(HEADER_LENGTH_NUM_BYTES);
        if header_num_bytes > MAX_HEADER_NUM_BYTES || data_start > file_num_bytes {
            return Err(broken(format!("its header claims {header_num_bytes} bytes")));
        }
        let mut json = vec![0; usize::try_from(header_num_bytes).expect("checked against the maximum")];
        file.read_exact_at(&mut json, HEADER_LENGTH_NUM_BYTES).map_err(io_error("read", path))?;
        let header: Metadata = serde_json::from_slice(&json).map_err(|error| broken(error.to_string()))?;
        let expected_num_bytes = data_start.saturating_add(header.data_len() as u64);
        if expected_num_bytes != file_num_bytes {
            let problem = format!("it has {file_num_bytes} bytes, its header needs {expected_num_bytes}");
            return Err(broken(problem));
        }
        Ok(Self { path: path.to_owned(), file, header, data_start })
    }

    /// Names of all tensors, in the order of their bytes; the scales of an int8 matrix belong to it.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = self.header.offset_keys();
        names.retain(|name| !name.strip_suffix(SCALES_SUFFIX).is_some_and(|matrix| self.is_int8(matrix)));
        names
    }

    /// Whether a tensor is a matrix of int8 with a scale for each row.
    #[must_use]
    pub fn is_int8(&self, name: &str) -> bool {
        let scales = self.info(&scales_name(name));
        self.info(name).zip(scales).is_some_and(|(matrix, scales)| {
            let has_rows = matches!(matrix.shape[..], [rows, _] if scales.shape == [rows]);
            matrix.dtype == Dtype::I8 && scales.dtype == Dtype::F32 && has_rows
        })
    }

    /// Shape and dtype of a tensor, if the file has it.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.header.info(name)
    }

    /// Reads one floating-point tensor as stored: its dtype, its shape and its bytes, little-endian. An int8
    /// matrix with scales is read as f32.
    ///
    /// # Errors
    /// The tensor is missing, is of an integer type without scales, or cannot be read.
    pub fn read(&self, name: &str) -> Result<StoredTensor, BundleError> {
        let TensorInfo { dtype, shape, data_offsets: (start, end) } = self.known(name)?;
        if self.is_int8(name) {
            return self.read_int8(name, shape, end - start);
        }
        let dtype = match dtype {
            Dtype::F32 => WeightDtype::F32,
            Dtype::BF16 => WeightDtype::Bf16,
            Dtype::F16 => WeightDtype::F16,
            other => {
                return Err(
                    self.tensor_error(name, format!("is {other}; only F32, BF16 and F16 are supported"))
                );
            }
        };
        let mut bytes = vec![0; end - start];
        self.read_bytes(name, 0, &mut bytes)?;
        Ok(StoredTensor { dtype, shape: shape.clone(), bytes })
    }

    /// Fills `bytes` from a tensor of any type, little-endian, starting at byte `offset`.
    ///
    /// # Errors
    /// The tensor is missing, ends before, or cannot be read.
    pub fn read_bytes(&self, name: &str, offset: usize, bytes: &mut [u8]) -> Result<(), BundleError> {
        let (start, end) = self.known(name)?.data_offsets;
        if end - start < offset + bytes.len() {
            let problem = format!("has {} bytes, not {}", end - start, offset + bytes.len());
            return Err(self.tensor_error(name, problem));
        }
        let place = self.data_start + (start + offset) as u64;
        self.file.read_exact_at(bytes, place).map_err(io_error("read", &self.path))
    }

    fn read_int8(&self, name: &str, shape: &[usize], num_bytes: usize) -> Result<StoredTensor, BundleError> {
        let scales = self.read_f32(&scales_name(name))?;
        let mut steps = vec![0; num_bytes];
        self.read_bytes(name, 0, &mut steps)?;
        let rows = steps.chunks(shape[1].max(1)).zip(&scales);
        let values =
            rows.flat_map(|(row, &scale)| row.iter().map(move |&step| f32::from(step.cast_signed()) * scale));
        let bytes = values.flat_map(f32::to_le_bytes).collect();
        Ok(StoredTensor { dtype: WeightDtype::F32, shape: shape.to_vec(), bytes })
    }

    fn known(&self, name: &str) -> Result<&TensorInfo, BundleError> {
        self.header.info(name).ok_or_else(|| self.tensor_error(name, "is missing".to_owned()))
    }

    fn tensor_error(&self, name: &str, problem: String) -> BundleError {
        BundleError::Tensor { path: self.path.clone(), tensor: name.to_owned(), problem }
    }

    /// Reads one floating-point tensor, widened to f32 without loss.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, BundleError> {
        Ok(self.read(name)?.to_f32())
    }
}

/// Name of the scales of an int8 matrix.
pub(crate) fn scales_name(matrix: &str) -> String {
    format!("{matrix}{SCALES_SUFFIX}")
}

/// A tensor as a safetensors file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Number type.
    pub dtype: WeightDtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The values, little-endian, row by row.
    pub bytes: Vec<u8>,
}

impl StoredTensor {
    /// Its numbers, widened without loss.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            WeightDtype::F32 => widen(&self.bytes, f32::from_le_bytes),
            WeightDtype::Bf16 => widen(&self.bytes, |pair| bf16::from_le_bytes(pair).to_f32()),
            WeightDtype::F16 => widen(&self.bytes, |pair| f16::from_le_bytes(pair).to_f32()),
        }
    }
}

fn widen<const WIDTH: usize>(bytes: &[u8], value: impl Fn([u8; WIDTH]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<WIDTH>().0.iter().map(|chunk| value(*chunk)).collect()
}

/// Writes a safetensors file, tensor by tensor, in the given order and dtype.
///
/// `values` is asked once for each tensor and gives as many numbers as its shape has. The bytes depend on
/// nothing but the arguments.
///
/// # Errors
/// `values` fails, or the file cannot be written.
///
/// # Panics
/// `values` gives another number of values than the shape has.
pub fn write_safetensors<E: From<BundleError>>(
    path: &Path,
    shapes: &[(String, Vec<usize>)],
    dtype: WeightDtype,
    mut values: impl FnMut(&str) -> Result<Vec<f32>, E>,
) -> Result<(), E> {
    let mut end = 0;
    let infos = shapes.iter().map(|(name, shape)| {
        let start = end;
        let dtype = Dtype::from(dtype);
        end += shape.iter().product::<usize>() * dtype.bitsize() / 8;
        (name.clone(), TensorInfo { dtype, shape: shape.clone(), data_offsets: (start, end) })
    });
    // Readers of the Hugging Face libraries ask for this entry.
    let framework = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let header = Metadata::new(Some(framework), infos.collect()).expect("the offsets follow from the shapes");
    let mut json = serde_json::to_vec(&header).expect("a header has only strings and numbers");
    json.resize(json.len().next_multiple_of(HEADER_LENGTH_NUM_BYTES as usize), b' ');

    let failed = || io_error("write", path);
    let file = File::create(path).map_err(failed())?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    writer.write_all(&(json.len() as u64).to_le_bytes()).map_err(failed())?;
    writer.write_all(&json).map_err(failed())?;
    for (name, shape) in shapes {
        let values = values(name)?;
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}: a source checks shapes first");
        for value in values {
            let written = match dtype {
                WeightDtype::F32 => writer.write_all(&value.to_le_bytes()),
                WeightDtype::Bf16 => writer.write_all(&bf16::from_f32(value).to_le_bytes()),
                WeightDtype::F16 => writer.write_all(&f16::from_f32(value).to_le_bytes()),
            };
            written.map_err(failed())?;
        }
    }
    let file = writer.into_inner().map_err(|error| failed()(error.into_error()))?;
    Ok(file.sync_all().map_err(failed())?)
}
