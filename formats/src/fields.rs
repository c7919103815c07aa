//! The fields of one row, borrowed from the reader's buffer: only what a record needs is converted.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::FailureCode;
use crate::columns::{Cell, CellText};
use crate::kept::KeptColumns;
use crate::reader::invalid_utf8;
use crate::row::{Fault, Row, RowContent};
use crate::surrogate::find_half_pair;

/// Names and values in the order of the row.
pub(crate) struct Fields<'row> {
    fields: Vec<(Cow<'row, str>, FieldValue<'row>)>,
    /// Names of all fields of the row, if not all of them are read.
    names: Option<&'row [String]>,
}

#[derive(Clone, Copy)]
pub(crate) enum FieldValue<'row> {
    /// The value as spelled in the line, so that a number keeps its digits. The second is the line, to find
    /// columns.
    Json(&'row RawValue, &'row str),
    Text(&'row str),
    /// A value of a typed column.
    Cell(Cell<'row>),
}

/// The name of the type of values that are no value.
pub(crate) const NULL: &str = "null";

/// Why there is no text in a value.
pub(crate) enum NoText {
    /// It is of this JSON type.
    Type(&'static str),
    /// It is not valid.
    Invalid(Fault),
}

impl<'row> Fields<'row> {
    pub(crate) fn of(row: Row<'row>, text_field: &'row str) -> Result<Fields<'row>, Fault> {
        let utf8 = |bytes, what: &str| std::str::from_utf8(bytes).map_err(|error| invalid_utf8(what, error));
        let text = |bytes: &'row [u8], what: &str| match bytes.contains(&0) {
            true => Err(Fault::new(FailureCode::InvalidRow, format!("{what} holds a NUL byte"))),
            false => utf8(bytes, what),
        };
        let mut names = None;
        let fields = match row.content {
            RowContent::Fault(fault) => return Err(fault),
            RowContent::Json(line) | RowContent::Request(line) => parse_object(utf8(line, "the line")?)?,
            RowContent::Text(line) => {
                vec![(Cow::Borrowed(text_field), FieldValue::Text(text(line, "the line")?))]
            }
            RowContent::Cells(cells) => {
                let (found, expected) = (cells.ends.len(), cells.columns.len());
                if found != expected {
                    let lines = match cells.num_lines {
                        0 | 1 => String::new(),
                        lines => format!(" on its {lines} lines"),
                    };
                    let message = format!(
                        "the row has {found} columns{lines}, the header has {expected}; is a cell not quoted?"
                    );
                    return Err(Fault::new(FailureCode::InvalidRow, message));
                }
                let field = |(name, cell): (&'row String, &'row [u8])| {
                    let text = text(cell, &format!("column `{name}`"))?;
                    Ok((Cow::Borrowed(name.as_str()), FieldValue::Text(text)))
                };
                cells.columns.iter().zip(cells.iter()).map(field).collect::<Result<_, _>>()?
            }
            RowContent::Columns(columns) => {
                names = Some(columns.names);
                let field = |cell: Cell<'row>| (cell.field.name().as_str().into(), FieldValue::Cell(cell));
                columns.cells().map(field).collect()
            }
        };
        Ok(Fields { fields, names })
    }

    /// The field's value; of repeated fields, the last. A name that no field has is a path: `a.b` is field
    /// `b` of the object `a`, `a.0` the first of the array `a`.
    pub(crate) fn get(&self, name: &str) -> Option<FieldValue<'row>> {
        find(&self.fields, name).or_else(|| {
            let (first, rest) = name.split_once('.')?;
            rest.split('.').try_fold(find(&self.fields, first)?, FieldValue::inner)
        })
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        match self.names {
            Some(names) => names.iter().map(String::as_str).collect(),
            None => self.fields.iter().map(|(name, _)| name.as_ref()).collect(),
        }
    }

    /// All fields but the id's.
    pub(crate) fn all_but(&self, id_field: Option<&str>) -> Result<Map<String, Value>, Fault> {
        let others = self.fields.iter().filter(|(name, _)| Some(name.as_ref()) != id_field);
        others.map(|(name, value)| Ok((name.clone().into_owned(), value.to_json(name)?))).collect()
    }

    /// The fields among `columns`, as one row of these columns. A column that the row lacks is null.
    pub(crate) fn in_columns(&self, columns: &KeptColumns) -> Result<Bytes, Fault> {
        let value = |field: &Arc<arrow_schema::Field>| match find(&self.fields, field.name()) {
            None => Ok(arrow_array::new_null_array(field.data_type(), 1)),
            Some(value) => value.to_column(field.data_type()),
        };
        let values: Result<Vec<ArrayRef>, ArrowError> = columns.schema().fields().iter().map(value).collect();
        let row: Result<RecordBatch, ArrowError> = values.and_then(|values| columns.row(values));
        row.and_then(|row| columns.encode(&row))
            .map_err(|error| Fault::new(FailureCode::WrongType, format!("a field cannot be kept: {error}")))
    }
}

fn find<'row>(fields: &[(Cow<'row, str>, FieldValue<'row>)], name: &str) -> Option<FieldValue<'row>> {
    fields.iter().rev().find(|(field, _)| field == name).map(|(_, value)| *value)
}

impl<'row> FieldValue<'row> {
    /// The field of an object, or the item of an array.
    fn inner(self, name: &str) -> Option<FieldValue<'row>> {
        let (raw, line) = match self {
            FieldValue::Json(raw, line) => (raw, line),
            FieldValue::Text(_) => return None,
            FieldValue::Cell(cell) => return cell.inner(name).map(FieldValue::Cell),
        };
        match self.type_name() {
            "an object" => find(&parse_object(raw.get()).ok()?, name).map(|value| value.within(line)),
            "an array" => {
                let items: Vec<&'row RawValue> = serde_json::from_str(raw.get()).ok()?;
                Some(FieldValue::Json(items.get(name.parse::<usize>().ok()?)?, line))
            }
            _ => None,
        }
    }

    fn within(self, line: &'row str) -> FieldValue<'row> {
        match self {
            FieldValue::Json(raw, _) => FieldValue::Json(raw, line),
            value => value,
        }
    }

    pub(crate) fn to_text(self) -> Result<String, NoText> {
        match self {
            FieldValue::Text(text) => Ok(text.to_owned()),
            FieldValue::Cell(cell) => match cell.text() {
                CellText::Text(text) => Ok(text.to_owned()),
                CellText::Bytes(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Ok(text.to_owned()),
                    Err(error) => Err(NoText::Invalid(invalid_utf8("the field", error))),
                },
                CellText::Other(found) => Err(NoText::Type(found)),
            },
            FieldValue::Json(raw, line) => match self.type_name() {
                "a string" => from_raw(raw, line).map_err(NoText::Invalid),
                other => Err(NoText::Type(other)),
            },
        }
    }

    /// A string, or a number with all its digits.
    pub(crate) fn to_id(self) -> Result<String, NoText> {
        match self {
            FieldValue::Json(raw, _) if self.type_name() == "a number" => Ok(raw.get().to_owned()),
            FieldValue::Cell(cell) => cell.to_id().map_or_else(|| self.to_text(), Ok),
            _ => self.to_text(),
        }
    }

    pub(crate) fn to_json(self, name: &str) -> Result<Value, Fault> {
        match self {
            FieldValue::Text(text) => Ok(Value::from(text)),
            FieldValue::Json(raw, line) => from_raw(raw, line),
            FieldValue::Cell(cell) => cell.to_json().map_err(|error| {
                Fault::new(FailureCode::WrongType, format!("field `{name}` has no form in JSON: {error}"))
            }),
        }
    }

    /// A column of this type with only this value.
    fn to_column(self, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        let text = match self {
            FieldValue::Cell(cell) => return cell.cast(data_type),
            FieldValue::Text(text) => text,
            FieldValue::Json(raw, _) => raw.get(),
        };
        arrow_cast::cast(&StringArray::from(vec![text]), data_type)
    }

    fn type_name(self) -> &'static str {
        match self {
            FieldValue::Text(_) => "a string",
            FieldValue::Cell(cell) => match cell.text() {
                CellText::Text(_) => "a string",
                CellText::Bytes(_) => "bytes",
                CellText::Other(name) => name,
            },
            FieldValue::Json(raw, _) => match raw.get().as_bytes().first() {
                Some(b'"') => "a string",
                Some(b'{') => "an object",
                Some(b'[') => "an array",
                Some(b't' | b'f') => "a boolean",
                Some(b'n') => NULL,
                _ => "a number",
            },
        }
    }
}

fn from_raw<'line, T: Deserialize<'line>>(raw: &'line RawValue, line: &'line str) -> Result<T, Fault> {
    serde_json::from_str(raw.get()).map_err(|error| {
        let offset = raw.get().as_ptr() as usize - line.as_ptr() as usize;
        not_json(&error, raw.get(), offset)
    })
}

fn parse_object(line: &str) -> Result<Vec<(Cow<'_, str>, FieldValue<'_>)>, Fault> {
    let object: Object<'_> = serde_json::from_str(line).map_err(|error| match error.is_data() {
        true => Fault::new(FailureCode::WrongType, "the line is JSON but not an object"),
        false => not_json(&error, line, 0),
    })?;
    Ok(object.0.into_iter().map(|(name, raw)| (name.0, FieldValue::Json(raw, line))).collect())
}

/// Names the column and the parser's expectation, and never quotes the content.
fn not_json(error: &serde_json::Error, json: &str, offset: usize) -> Fault {
    if let Some((half, place)) = find_half_pair(json) {
        let message = format!(
            "column {} has {half}, half of a surrogate pair, which is no character; write both halves, or \
             the character itself",
            offset + place + 1
        );
        return Fault::new(FailureCode::InvalidJson, message);
    }
    let message = error.to_string();
    let expected = message.split(" at line ").next().unwrap_or_default();
    Fault::new(
        FailureCode::InvalidJson,
        format!("not JSON at column {}: {expected}", offset + error.column()),
    )
}

/// A JSON object whose values are separated, but not converted.
struct Object<'line>(Vec<(Name<'line>, &'line RawValue)>);

#[derive(Deserialize)]
struct Name<'line>(#[serde(borrow)] Cow<'line, str>);

impl<'line> Deserialize<'line> for Object<'line> {
    fn deserialize<D: Deserializer<'line>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'line> Visitor<'line> for Entries {
            type Value = Object<'line>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'line>>(self, mut map: A) -> Result<Object<'line>, A::Error> {
                let mut entries = Vec::with_capacity(4);
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
