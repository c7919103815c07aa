"""Writes small Parquet files with the libraries that people write them with, for formats/tests/parquet.rs.

    python3 -m venv venv
    venv/bin/pip install pandas pyarrow polars duckdb fastparquet pyspark
    venv/bin/python scripts/parquet_fixtures.py
    venv/bin/python scripts/parquet_fixtures.py check

PySpark needs Java 17. Each file has the same rows, those of expected.json. `check` reads part.parquet, a part
that Baton wrote, with these libraries.
"""

import datetime
import decimal
import json
import pathlib
import shutil
import sys
import tempfile

import duckdb
import fastparquet
import pandas
import polars
import pyarrow
import pyarrow.parquet
from pyspark.sql import SparkSession, types

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "formats" / "tests" / "fixtures"
NUM_ROWS = 60
WORDS = "archive of small tools reads mail and writes logs quickly".split()
DAY = datetime.datetime(2026, 3, 1, 12, 30, 15, 250000)


def text(number):
    if number % 10 == 7:
        return None
    if number == 30:
        return "perché ☕ " * 2000  # longer than what is kept of a page's statistics
    return " ".join(WORDS[(number + place * place) % len(WORDS)] for place in range(1 + number % 7))


ROWS = [
    {
        "id": number,
        "text": text(number),
        "lang": ["en", "it", "de"][number % 3],
        "score": None if number % 4 == 3 else number / 4,
        "when": DAY + datetime.timedelta(hours=number),
        "tags": None if number % 5 == 4 else ["t%d" % place for place in range(number % 3)],
        "doc": {"body": text(number), "page": number % 11},
    }
    for number in range(NUM_ROWS)
]

ARROW_SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.int64()),
        ("text", pyarrow.string()),
        ("lang", pyarrow.string()),
        ("score", pyarrow.float64()),
        ("when", pyarrow.timestamp("us")),
        ("tags", pyarrow.list_(pyarrow.string())),
        ("doc", pyarrow.struct([("body", pyarrow.string()), ("page", pyarrow.int64())])),
    ]
)


def pyarrow_files():
    table = pyarrow.Table.from_pylist(ROWS, schema=ARROW_SCHEMA)
    write = pyarrow.parquet.write_table
    write(table, FIXTURES / "pyarrow-v1-snappy.parquet", row_group_size=16, compression="snappy")
    write(
        table,
        FIXTURES / "pyarrow-v2-zstd.parquet",
        row_group_size=25,
        compression="zstd",
        data_page_version="2.0",
        version="2.6",
        data_page_size=512,
        write_page_checksum=True,
        column_encoding={
            "text": "DELTA_LENGTH_BYTE_ARRAY",
            "id": "DELTA_BINARY_PACKED",
            "score": "BYTE_STREAM_SPLIT",
        },
        use_dictionary=["lang"],
    )
    write(table, FIXTURES / "pyarrow-gzip.parquet", compression="gzip", use_dictionary=False)
    kinds = {
        "id": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "text": pyarrow.large_string(),
        "lang": pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
        "view": pyarrow.string_view(),
    }
    columns = [
        pyarrow.array([str(row["id"]) for row in ROWS]).dictionary_encode(),
        pyarrow.array([row["text"] for row in ROWS], kinds["text"]),
        pyarrow.array([row["lang"] for row in ROWS]).dictionary_encode(),
        pyarrow.array([row["text"] for row in ROWS], kinds["view"]),
        pyarrow.array([decimal.Decimal(row["id"]) / 8 for row in ROWS], pyarrow.decimal128(12, 3)),
        pyarrow.array([row["when"].date() for row in ROWS], pyarrow.date32()),
        pyarrow.array([row["when"] for row in ROWS], pyarrow.timestamp("ms", "Europe/Rome")),
        pyarrow.array([[("k", row["id"])] for row in ROWS], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        pyarrow.array([[1.5, row["id"]] for row in ROWS], pyarrow.list_(pyarrow.float32(), 2)),
        pyarrow.array([(row["text"] or "").encode() for row in ROWS], pyarrow.binary()),
        pyarrow.nulls(NUM_ROWS),
        pyarrow.array([row["id"] % 2 == 0 for row in ROWS]),
    ]
    names = "id text lang view price day when counts vector raw nothing even".split()
    table = pyarrow.Table.from_arrays(columns, names)
    write(table, FIXTURES / "pyarrow-kinds-lz4.parquet", compression="lz4", row_group_size=40)
    write(table.slice(0, 0), FIXTURES / "pyarrow-no-rows.parquet")


def pandas_file():
    frame = pandas.DataFrame(ROWS).set_index("id", drop=False)
    frame.index.name = "key"
    frame["lang"] = frame["lang"].astype("category")
    frame.to_parquet(FIXTURES / "pandas.parquet")


def polars_files():
    frame = polars.DataFrame(ROWS, schema_overrides={"lang": polars.Categorical})
    frame.write_parquet(FIXTURES / "polars.parquet", compression="zstd", row_group_size=20)


def duckdb_file():
    connection = duckdb.connect()
    rows = pyarrow.Table.from_pylist(ROWS, schema=ARROW_SCHEMA)
    connection.register("rows", rows)
    target = FIXTURES / "duckdb.parquet"
    query = "SELECT * FROM rows ORDER BY id"
    connection.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")


def fastparquet_file():
    rows = [{key: row[key] for key in ("id", "text", "lang", "score", "when")} for row in ROWS]
    frame = pandas.DataFrame(rows)
    frame["text"] = frame["text"].astype(object).where(frame["text"].notna(), None)
    fastparquet.write(str(FIXTURES / "fastparquet.parquet"), frame, compression="GZIP", row_group_offsets=22)


def spark_file():
    session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    session = session.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    schema = types.StructType(
        [
            types.StructField("id", types.LongType()),
            types.StructField("text", types.StringType()),
            types.StructField("lang", types.StringType()),
            types.StructField("score", types.DoubleType()),
            types.StructField("when", types.TimestampType()),  # INT96
            types.StructField("tags", types.ArrayType(types.StringType())),
            types.StructField(
                "doc",
                types.StructType(
                    [
                        types.StructField("body", types.StringType()),
                        types.StructField("page", types.LongType()),
                    ]
                ),
            ),
        ]
    )
    utc = [{**row, "when": row["when"].replace(tzinfo=datetime.timezone.utc)} for row in ROWS]
    frame = session.createDataFrame(utc, schema).coalesce(1)
    with tempfile.TemporaryDirectory() as directory:
        frame.write.parquet(f"{directory}/out")
        [part] = pathlib.Path(directory, "out").glob("part-*.parquet")
        shutil.copy(part, FIXTURES / "spark-snappy.parquet")
    session.stop()


def check_part():
    """Compares what each library reads of a part with the rows that it was made of."""
    path = str(FIXTURES / "part.parquet")
    rows = {str(row["id"]): row for row in ROWS if row["text"] is not None}
    schema = pyarrow.parquet.read_schema(path)
    for name in ["text", "lang", "when", "doc"]:
        assert schema.field(name).type == ARROW_SCHEMA.field(name).type, schema.field(name)
    tables = {
        "pyarrow": pyarrow.parquet.read_table(path).to_pylist(),
        "pandas": pyarrow.Table.from_pandas(pandas.read_parquet(path)).to_pylist(),
        "polars": polars.read_parquet(path).to_dicts(),
        "duckdb": duckdb.sql(f"SELECT * FROM '{path}'").to_arrow_table().to_pylist(),
    }
    session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    session = session.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    tables["spark"] = [row.asDict(recursive=True) for row in session.read.parquet(path).collect()]
    session.stop()
    for library, table in tables.items():
        assert [row["id"] for row in table] == list(rows), library
        for row in table:
            expected = rows[row["id"]]
            for name in ["text", "lang", "when", "tags", "doc"]:
                assert row[name] == expected[name], (library, name, row)
            assert row["fields.score"] == expected["score"], (library, row)
            assert row["output"] == expected["text"].upper(), (library, row)
            assert row["alternatives"][0]["output_tokens"] == 4, (library, row)
        print(library, len(table), "rows")


def main():
    if sys.argv[1:] == ["check"]:
        return check_part()
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for write in [pyarrow_files, pandas_file, polars_files, duckdb_file, fastparquet_file, spark_file]:
        write()
    rows = [{**row, "when": row["when"].isoformat()} for row in ROWS]
    expected = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"
    (FIXTURES / "expected.json").write_text(expected)
    for path in sorted(FIXTURES.iterdir()):
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
