//! Marian's binary model files: named arrays of floats, of int8 as intgemm multiplies them, and of bytes.
//!
//! The layout is that of `src/common/binary.cpp` of marian-nmt: version, number of items, headers, names,
//! shapes, padding, data; all little-endian.

use std::{collections::BTreeMap, path::Path};

use baton_bundle::read_bytes;

use crate::ImportError;

const VERSION: u64 = 1;
const HEADER_NUM_BYTES: usize = 32;
/// No model has more; a larger number means that the file is something else.
const MAX_ITEMS: usize = 100_000;
/// The item that has the model's settings.
const SETTINGS: &str = "special:model.yml";

/// The types of items that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ItemType {
    Float,
    /// Int8, column by column, followed by the multiplier that made whole numbers of the weights.
    Intgemm8,
    Bytes,
}

/// A whole file in memory.
#[derive(Debug)]
pub(crate) struct MarianFile {
    bytes: Vec<u8>,
    items: BTreeMap<String, Item>,
}

#[derive(Debug)]
struct Item {
    /// None for a type that is not read.
    item_type: Option<ItemType>,
    code: u64,
    shape: Vec<usize>,
    start: usize,
    num_bytes: usize,
}

/// How a matrix lies in the file, and so how it comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lying {
    /// As its shape says: embeddings.
    ByRows,
    /// Multiplied from the right, so that it comes out transposed, `[out, in]`.
    Product,
}

impl MarianFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is cut, or is something else.
    pub(crate) fn open(path: &Path) -> Result<Self, ImportError> {
        let bytes = read_bytes(path)?;
        let items = items(&bytes).ok_or_else(|| ImportError::UnsupportedSource {
            path: path.to_owned(),
            reason: "it is no complete model file of Marian (version 1); fetch it again".to_owned(),
        })?;
        Ok(Self { bytes, items })
    }

    /// Whether a file begins as such files do.
    pub(crate) fn is_one(path: &Path) -> bool {
        let mut start = [0; 8];
        let read =
            std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
        read.is_ok() && u64::from_le_bytes(start) == VERSION
    }

    /// Names of all items.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.items.keys().map(String::as_str)
    }

    /// The settings that the model was trained with, as YAML.
    pub(crate) fn settings(&self) -> Option<String> {
        let item = self.items.get(SETTINGS).filter(|item| item.item_type == Some(ItemType::Bytes))?;
        let text = String::from_utf8(self.data(item).to_vec()).ok()?;
        Some(text.trim_end_matches('\0').to_owned())
    }

    /// Sizes of an item.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.items.get(name).map(|item| item.shape.as_slice())
    }

    /// Numbers of an item, or its problem. `shape`: the expected shape.
    pub(crate) fn numbers(&self, name: &str, shape: &[usize], lying: Lying) -> Result<Vec<f32>, String> {
        let item = self.items.get(name).ok_or("is missing")?;
        if item.shape != shape {
            return Err(format!("has shape {:?}, but the settings say {shape:?}", item.shape));
        }
        let &[rows, columns] = shape else { return Err("is no matrix".to_owned()) };
        let (numel, data) = (rows * columns, self.data(item));
        let too_short = || "is shorter than its shape says".to_owned();
        match item.item_type {
            Some(ItemType::Float) => {
                let data = data.get(..4 * numel).ok_or_else(too_short)?;
                let number = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
                let numbers: Vec<f32> = data.as_chunks().0.iter().map(number).collect();
                Ok(match lying {
                    Lying::ByRows => numbers,
                    Lying::Product => transposed(&numbers, columns),
                })
            }
            Some(ItemType::Intgemm8) => {
                let multiplier = data.get(numel..numel + 4).ok_or_else(too_short)?;
                let multiplier = f32::from_le_bytes(multiplier.try_into().expect("four bytes"));
                if !(multiplier.is_finite() && multiplier > 0.0) {
                    return Err(format!("has the multiplier {multiplier}"));
                }
                // A matrix that is multiplied lies column by column: that is [out, in] already.
                Ok(data[..numel].iter().map(|&byte| f32::from(byte as i8) / multiplier).collect())
            }
            Some(ItemType::Bytes) | None => {
                let supported = "f32 (0x404) and intgemm8 (0x4101)";
                Err(format!("has type {:#x}; {supported} are supported", item.code))
            }
        }
    }

    fn data(&self, item: &Item) -> &[u8] {
        &self.bytes[item.start..item.start + item.num_bytes]
    }
}

fn transposed(numbers: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| numbers.iter().skip(column).step_by(columns).copied()).collect()
}

/// All items of a file, if it is whole.
fn items(bytes: &[u8]) -> Option<BTreeMap<String, Item>> {
    let mut rest = bytes;
    let mut take = |len: u64| {
        let (taken, left) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        rest = left;
        Some(taken)
    };
    let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
    if number(take(8)?)? != VERSION {
        return None;
    }
    let num_items = usize::try_from(number(take(8)?)?).ok().filter(|&items| items <= MAX_ITEMS)?;
    let headers = take((num_items * HEADER_NUM_BYTES) as u64)?;
    let headers: Vec<[u64; 4]> = headers
        .as_chunks::<HEADER_NUM_BYTES>()
        .0
        .iter()
        .map(|header| {
            let field = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
            [field(0), field(8), field(16), field(24)]
        })
        .collect();
    let mut names = Vec::with_capacity(num_items);
    for [name_len, ..] in &headers {
        let name = std::str::from_utf8(take(*name_len)?).ok()?;
        names.push(name.trim_end_matches('\0').to_owned());
    }
    let mut shapes = Vec::with_capacity(num_items);
    for [_, _, num_dimensions, _] in &headers {
        let sizes = take(num_dimensions.checked_mul(4)?)?.as_chunks::<4>().0;
        let size =
            |bytes: &[u8; 4]| usize::try_from(i32::from_le_bytes(*bytes)).ok().filter(|&size| size < 1 << 28);
        shapes.push(sizes.iter().map(size).collect::<Option<Vec<usize>>>()?);
    }
    let padding = number(take(8)?)?;
    take(padding)?;
    let mut start = bytes.len() - rest.len();
    let mut items = BTreeMap::new();
    for (([_, code, _, num_bytes], name), shape) in headers.into_iter().zip(names).zip(shapes) {
        let num_bytes = usize::try_from(num_bytes).ok()?;
        let end = start.checked_add(num_bytes).filter(|&end| end <= bytes.len())?;
        let item_type = match code {
            0x404 => Some(ItemType::Float),
            0x4101 => Some(ItemType::Intgemm8),
            0x101 => Some(ItemType::Bytes),
            _ => None,
        };
        items.insert(name, Item { item_type, code, shape, start, num_bytes });
        start = end;
    }
    Some(items)
}
