//! Values of typed columns: their texts, their ids, and their form in JSON.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, OffsetSizeTrait, RecordBatch};
use arrow_cast::display::array_value_to_string;
use arrow_json::writer::{EncoderOptions, make_encoder};
use arrow_schema::{ArrowError, DataType, Field, FieldRef};
use serde_json::Value;

/// Length of a UUID, bytes.
const UUID_NUM_BYTES: i32 = 16;

/// The place of a value in a column.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'row> {
    pub(crate) field: &'row FieldRef,
    pub(crate) array: &'row ArrayRef,
    pub(crate) row: usize,
}

/// A row of typed columns.
#[derive(Clone, Copy)]
pub(crate) struct ColumnRow<'row> {
    /// The columns that are read.
    pub(crate) batch: &'row RecordBatch,
    pub(crate) row: usize,
    /// All columns of the file, read or not.
    pub(crate) names: &'row [String],
}

/// A value, as far as it matters to a reader of texts.
pub(crate) enum CellText<'row> {
    Text(&'row str),
    /// Bytes of a column without a declared meaning.
    Bytes(&'row [u8]),
    /// Another type, by its name.
    Other(&'static str),
}

impl<'row> ColumnRow<'row> {
    pub(crate) fn cells(self) -> impl Iterator<Item = Cell<'row>> {
        let columns = self.batch.schema_ref().fields().iter().zip(self.batch.columns());
        columns.map(move |(field, array)| Cell { field, array, row: self.row })
    }

    /// The row's weight in a shard: the bytes of its values.
    pub(crate) fn num_bytes(self) -> u64 {
        self.cells().map(Cell::num_bytes).sum()
    }
}

impl<'row> Cell<'row> {
    fn is_null(self) -> bool {
        self.array.is_null(self.row) || *self.array.data_type() == DataType::Null
    }

    pub(crate) fn text(self) -> CellText<'row> {
        if self.is_null() {
            return CellText::Other("null");
        }
        match self.array.data_type() {
            DataType::Utf8 => CellText::Text(self.array.as_string::<i32>().value(self.row)),
            DataType::LargeUtf8 => CellText::Text(self.array.as_string::<i64>().value(self.row)),
            DataType::Utf8View => CellText::Text(self.array.as_string_view().value(self.row)),
            DataType::Binary => CellText::Bytes(self.array.as_binary::<i32>().value(self.row)),
            DataType::LargeBinary => CellText::Bytes(self.array.as_binary::<i64>().value(self.row)),
            DataType::BinaryView => CellText::Bytes(self.array.as_binary_view().value(self.row)),
            DataType::Boolean => CellText::Other("a boolean"),
            DataType::Struct(_) | DataType::Map(..) => CellText::Other("an object"),
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
                CellText::Other("an array")
            }
            DataType::FixedSizeBinary(_) => CellText::Other("bytes of a fixed length"),
            data_type if data_type.is_numeric() => CellText::Other("a number"),
            _ => CellText::Other("a date or a time"),
        }
    }

    /// A number with all its digits, or a UUID; `None` for a value of another type.
    pub(crate) fn to_id(self) -> Option<String> {
        if self.is_null() {
            return None;
        }
        match self.array.data_type() {
            data_type if data_type.is_numeric() => array_value_to_string(self.array, self.row).ok(),
            DataType::FixedSizeBinary(UUID_NUM_BYTES) => {
                let bytes = self.array.as_fixed_size_binary().value(self.row);
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| &digits[group]);
                Some(groups.join("-"))
            }
            _ => None,
        }
    }

    /// The field of a struct, the value of a map, or the item of a list.
    pub(crate) fn inner(self, name: &str) -> Option<Cell<'row>> {
        if self.is_null() {
            return None;
        }
        let (columns, rows) = self.inside();
        let at = |&(field, array): &(&'row FieldRef, &'row ArrayRef), row| Cell { field, array, row };
        match (self.array.data_type(), &columns[..]) {
            (DataType::Struct(_), columns) => {
                let column = columns.iter().rfind(|(field, _)| field.name() == name)?;
                Some(at(column, rows.start))
            }
            (DataType::Map(..), [keys, values]) => {
                let is_wanted =
                    |&row: &usize| matches!(at(keys, row).text(), CellText::Text(key) if key == name);
                rows.rev().find(is_wanted).map(|row| at(values, row))
            }
            (_, [items]) => {
                let row = rows.start.checked_add(name.parse().ok()?)?;
                rows.contains(&row).then(|| at(items, row))
            }
            _ => None,
        }
    }

    /// The columns with the values inside this one, and the rows of these values.
    fn inside(self) -> (Vec<(&'row FieldRef, &'row ArrayRef)>, Range<usize>) {
        fn range<O: OffsetSizeTrait>(offsets: &[O], row: usize) -> Range<usize> {
            offsets[row].as_usize()..offsets[row + 1].as_usize()
        }
        match self.array.data_type() {
            DataType::Struct(fields) => {
                let columns = fields.iter().zip(self.array.as_struct().columns());
                (columns.collect(), self.row..self.row + 1)
            }
            DataType::List(item) => {
                let list = self.array.as_list::<i32>();
                (vec![(item, list.values())], range(list.value_offsets(), self.row))
            }
            DataType::LargeList(item) => {
                let list = self.array.as_list::<i64>();
                (vec![(item, list.values())], range(list.value_offsets(), self.row))
            }
            DataType::FixedSizeList(item, len) => {
                let (list, len) = (self.array.as_fixed_size_list(), *len as usize);
                (vec![(item, list.values())], self.row * len..(self.row + 1) * len)
            }
            DataType::Map(entries, _) => {
                let map = self.array.as_map();
                let DataType::Struct(fields) = entries.data_type() else { return (Vec::new(), 0..0) };
                let columns = fields.iter().zip([map.keys(), map.values()]);
                (columns.collect(), range(map.value_offsets(), self.row))
            }
            _ => (Vec::new(), 0..0),
        }
    }

    /// As JSON: times in ISO 8601 (in UTC if they have a zone); bytes in hexadecimal; decimals as strings,
    /// with all their digits; NaN and infinity as null.
    ///
    /// # Errors
    /// JSON has no form for its type.
    pub(crate) fn to_json(self) -> Result<Value, ArrowError> {
        let shown = with_leaves(self.array.data_type(), &|leaf| match leaf {
            DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("+00:00".into())),
            decimal if decimal.is_decimal() => DataType::Utf8,
            other => other.clone(),
        });
        if *self.array.data_type() != shown && !self.is_null() {
            let array = self.cast(&shown)?;
            let field = Arc::new(Field::new(self.field.name(), shown, true));
            return Cell { field: &field, array: &array, row: 0 }.encoded();
        }
        self.encoded()
    }

    fn encoded(self) -> Result<Value, ArrowError> {
        let options = EncoderOptions::default().with_explicit_nulls(true);
        let mut encoder = make_encoder(self.field, self.array, &options)?;
        if encoder.is_null(self.row) {
            return Ok(Value::Null);
        }
        let mut json = Vec::new();
        encoder.encode(self.row, &mut json);
        serde_json::from_slice(&json).map_err(|error| ArrowError::JsonError(error.to_string()))
    }

    /// A column of one row with this value in another type.
    ///
    /// # Errors
    /// The types do not fit together.
    pub(crate) fn cast(self, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        arrow_cast::cast(&self.array.slice(self.row, 1), data_type)
    }

    /// Bytes of the value, without its length.
    fn num_bytes(self) -> u64 {
        if self.is_null() {
            return 0;
        }
        match self.text() {
            CellText::Text(text) => return text.len() as u64,
            CellText::Bytes(bytes) => return bytes.len() as u64,
            CellText::Other(_) => {}
        }
        let (columns, rows) = self.inside();
        let of_column = |&(field, array): &(&'row FieldRef, &'row ArrayRef)| {
            rows.clone().map(|row| Cell { field, array, row }.num_bytes()).sum::<u64>()
        };
        let inside: u64 = columns.iter().map(of_column).sum();
        inside
            + match self.array.data_type() {
                DataType::FixedSizeBinary(len) => u64::from(len.unsigned_abs()),
                DataType::Boolean => 1,
                data_type => data_type.primitive_width().unwrap_or_default() as u64,
            }
    }
}

/// Applies `leaf` to the innermost types of a type. Dictionaries become their values, all lists get 32-bit
/// offsets, and metadata is dropped.
pub(crate) fn with_leaves(data_type: &DataType, leaf: &impl Fn(&DataType) -> DataType) -> DataType {
    let inner = |field: &FieldRef| {
        Arc::new(Field::new(field.name(), with_leaves(field.data_type(), leaf), field.is_nullable()))
    };
    match data_type {
        DataType::Dictionary(_, values) => with_leaves(values, leaf),
        DataType::RunEndEncoded(_, values) => with_leaves(values.data_type(), leaf),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::List(inner(item)),
        DataType::FixedSizeList(item, len) => DataType::FixedSizeList(inner(item), *len),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Map(entries, is_sorted) => DataType::Map(inner(entries), *is_sorted),
        other => leaf(other),
    }
}

/// Whether values of a column can be ids.
pub(crate) fn may_be_id(field: &Field) -> bool {
    match field.data_type() {
        DataType::Dictionary(_, values) => may_be_id(&Field::new("", (**values).clone(), true)),
        DataType::FixedSizeBinary(UUID_NUM_BYTES) => true,
        data_type => data_type.is_numeric() || data_type.is_string() || data_type.is_binary(),
    }
}
