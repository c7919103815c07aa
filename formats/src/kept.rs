//! The kept fields of a record, and their way to its output row: as a JSON object, or as a row of typed
//! columns if all inputs of a job have columns.
//!
//! A job has one set of columns, from the schemas of all inputs. A part's schema therefore does not depend on
//! the rows of its shard. A row travels as a message of an Arrow IPC stream; all rows of a job share the
//! stream's schema.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_buffer::Buffer;
use arrow_ipc::MetadataVersion;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use serde::de::Deserializer;
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::columns::{Cell, with_leaves};

/// Buffers of a row begin at multiples of this many bytes. The usual 64 would triple a short row.
const ALIGNMENT_NUM_BYTES: usize = 8;

/// Ends a stream. The decoder reads a message without a body only when bytes follow it.
const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// The way in which output rows keep the fields of their records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KeepFields {
    /// Rows keep no fields.
    #[default]
    No,
    /// Each row has its own object.
    AsJson,
    /// All rows have these columns.
    AsColumns(KeptColumns),
}

/// The fields that one row keeps.
#[derive(Debug, Clone, PartialEq)]
pub enum KeptFields {
    /// In the order of the input; empty if none are kept.
    Json(Map<String, Value>),
    /// The result of `KeptColumns::encode`.
    Columns(Bytes),
}

/// Names and types of the columns that all rows of a job keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptColumns {
    schema: SchemaRef,
    /// The beginning of an Arrow IPC stream of such rows.
    message: Bytes,
}

/// Two inputs have columns of the same name whose types do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column `{name}` is {first} in one input and {second} in another")]
pub struct MixedColumn {
    /// The column.
    pub name: String,
    /// Its type in the earlier inputs.
    pub first: String,
    /// Its type in the next one.
    pub second: String,
}

impl KeepFields {
    /// Whether any fields are kept.
    #[must_use]
    pub fn keeps_any(&self) -> bool {
        *self != KeepFields::No
    }

    /// The fields of a row as a JSON object.
    ///
    /// # Errors
    /// The row does not have these columns.
    pub(crate) fn json_of<'row>(
        &self,
        fields: &'row KeptFields,
    ) -> io::Result<Cow<'row, Map<String, Value>>> {
        match (fields, self) {
            (KeptFields::Json(object), _) => Ok(Cow::Borrowed(object)),
            (KeptFields::Columns(row), KeepFields::AsColumns(columns)) => {
                columns.json(row).map(Cow::Owned).map_err(invalid)
            }
            (KeptFields::Columns(_), _) => Err(invalid("a row has typed columns, but the job has none")),
        }
    }
}

impl KeptFields {
    /// Whether there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            KeptFields::Json(object) => object.is_empty(),
            KeptFields::Columns(_) => false,
        }
    }

    /// Names of the fields of a JSON object, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let object = match self {
            KeptFields::Json(object) => Some(object),
            KeptFields::Columns(_) => None,
        };
        object.into_iter().flat_map(Map::keys).map(String::as_str)
    }

    /// A field of a JSON object.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        match self {
            KeptFields::Json(object) => object.get(name),
            KeptFields::Columns(_) => None,
        }
    }

    /// Their bytes on the way.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        match self {
            KeptFields::Json(object) if object.is_empty() => 0,
            KeptFields::Json(object) => serde_json::to_vec(object).expect("a JSON object serializes").len(),
            KeptFields::Columns(row) => row.len(),
        }
    }
}

impl Default for KeptFields {
    fn default() -> KeptFields {
        KeptFields::Json(Map::new())
    }
}

impl From<Map<String, Value>> for KeptFields {
    fn from(object: Map<String, Value>) -> KeptFields {
        KeptFields::Json(object)
    }
}

impl Serialize for KeptFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            KeptFields::Json(object) => object.serialize(serializer),
            KeptFields::Columns(_) => Err(S::Error::custom("typed columns are written by their schema")),
        }
    }
}

impl<'de> Deserialize<'de> for KeptFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeptFields, D::Error> {
        Map::deserialize(deserializer).map(KeptFields::Json)
    }
}

impl KeptColumns {
    /// Columns with the names and types of `fields`. Values travel in few types: one for strings, one for
    /// bytes, and no dictionaries. Any column may have nulls.
    #[must_use]
    pub fn new<'f>(fields: impl IntoIterator<Item = &'f Field>) -> KeptColumns {
        let plain = |field: &Field| Field::new(field.name(), plain_type(field.data_type()), true);
        let schema = Arc::new(Schema::new(fields.into_iter().map(plain).collect::<Vec<_>>()));
        let message = stream(&schema).expect("plain types have an IPC form").1;
        KeptColumns { schema, message }
    }

    /// Reads the bytes of [`KeptColumns::to_bytes`].
    ///
    /// # Errors
    /// The bytes are not a schema.
    pub fn from_bytes(message: Bytes) -> io::Result<KeptColumns> {
        let mut decoder = StreamDecoder::new();
        let mut stream = Buffer::from([&message[..], &END_OF_STREAM].concat());
        decoder.decode(&mut stream).map_err(invalid)?;
        let schema = decoder.schema().ok_or_else(|| invalid("no schema is there"))?;
        Ok(KeptColumns { schema, message })
    }

    /// The schema as an Arrow IPC message.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.message.clone()
    }

    /// Whether there is no column.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.schema.fields().is_empty()
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.schema.fields().iter().map(|field| field.name().as_str())
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// These columns, plus the new ones of another input.
    ///
    /// # Errors
    /// A common column has types that do not fit together.
    pub fn merged(&self, other: &KeptColumns) -> Result<KeptColumns, MixedColumn> {
        let mut fields: Vec<Field> = self.schema.fields().iter().map(|field| (**field).clone()).collect();
        for new in other.schema.fields() {
            let Some(known) = fields.iter_mut().find(|known| known.name() == new.name()) else {
                fields.push((**new).clone());
                continue;
            };
            let common = common_type(known.data_type(), new.data_type()).ok_or_else(|| MixedColumn {
                name: new.name().clone(),
                first: known.data_type().to_string(),
                second: new.data_type().to_string(),
            })?;
            known.set_data_type(common);
        }
        Ok(KeptColumns::new(&fields))
    }

    /// One row of these columns, in the form for its way.
    ///
    /// # Errors
    /// The row does not have these columns.
    pub(crate) fn encode(&self, row: &RecordBatch) -> Result<Bytes, ArrowError> {
        let (mut writer, _) = stream(&self.schema)?;
        writer.write(row)?;
        Ok(std::mem::take(writer.get_mut()).into())
    }

    /// The rows that travelled as `rows`, in order, each in its own batch.
    ///
    /// # Errors
    /// The bytes are not a row of these columns.
    pub(crate) fn decode<'rows>(
        &self,
        rows: impl IntoIterator<Item = &'rows Bytes>,
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        let (mut stream, mut num_rows) = (self.message.to_vec(), 0);
        for row in rows {
            stream.extend_from_slice(row);
            num_rows += 1;
        }
        stream.extend_from_slice(&END_OF_STREAM);
        let (mut decoder, mut stream) = (StreamDecoder::new(), Buffer::from(stream));
        let mut batches = Vec::with_capacity(num_rows);
        while let Some(batch) = decoder.decode(&mut stream)? {
            batches.push(batch);
        }
        match batches.len() == num_rows && batches.iter().all(|batch| batch.num_rows() == 1) {
            true => Ok(batches),
            false => Err(ArrowError::IpcError("a kept row is not one row".to_owned())),
        }
    }

    fn json(&self, row: &Bytes) -> Result<Map<String, Value>, ArrowError> {
        let batch = self.decode([row])?.remove(0);
        let columns = self.schema.fields().iter().zip(batch.columns());
        columns
            .map(|(field, array)| Ok((field.name().clone(), Cell { field, array, row: 0 }.to_json()?)))
            .collect()
    }

    /// A batch of these columns, of one row.
    pub(crate) fn row(&self, values: Vec<arrow_array::ArrayRef>) -> Result<RecordBatch, ArrowError> {
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), values, &options)
    }
}

/// A stream of rows, and its beginning.
fn stream(schema: &Schema) -> Result<(StreamWriter<Vec<u8>>, Bytes), ArrowError> {
    let options = IpcWriteOptions::try_new(ALIGNMENT_NUM_BYTES, false, MetadataVersion::V5)?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), schema, options)?;
    let message = std::mem::take(writer.get_mut()).into();
    Ok((writer, message))
}

/// The type in which values of a type travel.
fn plain_type(data_type: &DataType) -> DataType {
    with_leaves(data_type, &|leaf| match leaf {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    })
}

/// The type that holds values of both, without loss.
fn common_type(one: &DataType, other: &DataType) -> Option<DataType> {
    use DataType::{
        Float16, Float32, Float64, Int8, Int16, Int32, Int64, Null, UInt8, UInt16, UInt32, UInt64,
    };
    const WIDENING: [&[DataType]; 3] =
        [&[Int8, Int16, Int32, Int64], &[UInt8, UInt16, UInt32, UInt64], &[Float16, Float32, Float64]];
    if one.equals_datatype(other) {
        return Some(one.clone());
    }
    let place = |types: &[DataType], wanted: &DataType| types.iter().position(|found| found == wanted);
    match (one, other) {
        (Null, wanted) | (wanted, Null) => Some(wanted.clone()),
        _ => WIDENING.iter().find_map(|types| {
            let widest = place(types, one)?.max(place(types, other)?);
            Some(types[widest].clone())
        }),
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int32Array, StringArray};
    use serde_json::json;

    use super::*;

    fn columns(fields: &[(&str, DataType)]) -> KeptColumns {
        let fields: Vec<Field> =
            fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), false)).collect();
        KeptColumns::new(&fields)
    }

    #[test]
    fn a_row_survives_its_way_and_so_do_the_columns() {
        let columns = columns(&[("lang", DataType::LargeUtf8), ("n", DataType::Int32)]);
        let far = KeptColumns::from_bytes(columns.to_bytes()).unwrap();
        assert_eq!(far, columns);
        let rows = [(Some("it"), Some(7)), (None, Some(-1)), (Some(""), None)].map(|(lang, n)| {
            let values: Vec<arrow_array::ArrayRef> =
                vec![Arc::new(StringArray::from(vec![lang])), Arc::new(Int32Array::from(vec![n]))];
            columns.row(values).unwrap()
        });
        let sent: Vec<Bytes> = rows.iter().map(|row| columns.encode(row).unwrap()).collect();
        assert_eq!(far.decode(&sent).unwrap(), rows);
        let keep = KeepFields::AsColumns(far);
        let object = keep.json_of(&KeptFields::Columns(sent[1].clone())).unwrap().into_owned();
        assert_eq!(Value::from(object), json!({ "lang": null, "n": -1 }));
    }

    #[test]
    fn a_row_of_columns_without_a_type_survives_its_way() {
        let columns = columns(&[("nothing", DataType::Null)]);
        let row = columns.row(vec![arrow_array::new_null_array(&DataType::Null, 1)]).unwrap();
        let sent = [columns.encode(&row).unwrap(), columns.encode(&row).unwrap()];
        assert_eq!(columns.decode(&sent).unwrap(), [row.clone(), row]);
    }

    #[test]
    fn bytes_that_are_not_a_row_are_refused() {
        let columns = columns(&[("n", DataType::Int32)]);
        for bytes in [&b""[..], b"\x00", &[0xff; 40], &columns.to_bytes()] {
            assert!(columns.decode([&Bytes::copy_from_slice(bytes)]).is_err(), "{bytes:?}");
        }
        assert!(KeptColumns::from_bytes(Bytes::from_static(b"no schema, but long enough")).is_err());
    }

    #[test]
    fn columns_of_several_inputs_are_joined_where_no_value_is_lost() {
        let first = columns(&[("a", DataType::Int16), ("b", DataType::Null)]);
        let second = columns(&[("b", DataType::Utf8View), ("a", DataType::Int64), ("c", DataType::Boolean)]);
        let merged = first.merged(&second).unwrap();
        assert_eq!(
            merged,
            columns(&[("a", DataType::Int64), ("b", DataType::Utf8), ("c", DataType::Boolean)])
        );
        let error = merged.merged(&columns(&[("c", DataType::Utf8)])).unwrap_err().to_string();
        assert_eq!(error, "column `c` is Boolean in one input and Utf8 in another");
        assert!(merged.merged(&columns(&[("a", DataType::Float64)])).is_err());
    }
}
