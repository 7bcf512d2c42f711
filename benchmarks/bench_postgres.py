"""PostgresSource against pandas, AWS SDK for pandas, ConnectorX and ADBC, in one run.

    python benchmarks/bench_postgres.py [--rows 1000000] [--runs 5] [--folder .]

- read: `read()` against `pandas.read_sql` over pg8000; and against `awswrangler.postgresql.read_sql_query`.
- adbc: `engine="adbc"` against ADBC's own fetch of the same rows.
- export: query to Parquet file, against awswrangler's chunks and ConnectorX's Arrow stream.
- memory: the peak of a process that exports one and four times the rows.

The server is the tests' own (`pip install smkit[test]`), or the one that SMKIT_TEST_PG_DSN names. awswrangler and
connectorx are compared where they are installed. What is compared runs in turn, each in a process of its own, so that
start and imports count for all alike; the ratio is that of the medians of the time that the work itself took. Exits
with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timing import report

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
SQL = "SELECT * FROM smkit_bench"
MEMORY_LIMIT_MB = 300

#: Twelve columns as houses have them: numbers, keys, dates, flags and text.
TABLE = """
CREATE TABLE smkit_bench AS SELECT
  g AS house_id, exp(14 + random()) AS price, random() * 90 AS area, random() * 30 + 20 AS latitude,
  random() * 50 + 80 AS longitude, CASE WHEN random() < 0.95 THEN random() * 8 END AS income,
  (random() * 6)::int8 AS rooms, (1950 + random() * 76)::int4 AS year, random() < 0.1 AS new,
  (ARRAY['Beijing', 'Chongqing', 'Shanghai', 'Yinchuan', 'Zhongwei'])[1 + (random() * 4)::int] AS city,
  'street ' || (random() * 50000)::int AS street, timestamp '2020-01-01' + random() * interval '1000 days' AS sold
FROM generate_series(1, {rows}) g
"""

PREPARE = """
import json, os, resource, sys, time, warnings
from urllib.parse import quote
import pyarrow as pa, pyarrow.parquet as pq
server, sql, path = json.load(sys.stdin)
warnings.simplefilter("ignore")

def smkit_source(**options):
    import smkit
    settings = smkit.Settings(postgres=smkit.PostgresSettings(**server))
    return smkit.PostgresSource(sql, settings=settings, **options)

def pg8000_connection():
    import pg8000
    return pg8000.connect(server["user"], host=server["host"], port=server["port"], database=server["database"],
                                password=server["password"])

def uri(scheme):
    return (f"{scheme}://{quote(server['user'], safe='')}:{quote(server['password'], safe='')}@{server['host']}:"
            f"{server['port']}/{server['database']}")

def export(schema, batches):
    with pq.ParquetWriter(path, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
"""
IMPORTS = {
    "smkit": "import pandas, pyarrow.csv; source = smkit_source()",
    "smkit adbc": "import adbc_driver_postgresql.dbapi, pandas; source = smkit_source(engine='adbc')",
    "smkit parts": "import pandas, pyarrow.csv; source = smkit_source(partition_on='house_id', partitions=2)",
    "pandas": "import pandas as pd; connection = pg8000_connection()",
    "awswrangler": "import awswrangler as wr; connection = pg8000_connection()",
    "connectorx": "import connectorx as cx",
    "adbc": "import adbc_driver_postgresql.dbapi as adbc",
}
WORK = {
    "read: smkit": "result = len(source.read())",
    "read: pandas": "result = len(pd.read_sql(sql, connection))",
    "read: awswrangler": "result = len(wr.postgresql.read_sql_query(sql, connection))",
    "fetch: smkit": "result = sum(batch.num_rows for batch in source.batches())",
    "fetch: smkit adbc": "result = sum(batch.num_rows for batch in source.batches())",
    "fetch: smkit parts": "result = sum(batch.num_rows for batch in source.batches())",
    # Connecting included, as in smkit's: ADBC reads the catalog of types then, which nothing can spare it.
    "fetch: adbc": "connection = adbc.connect(uri('postgresql')); cursor = connection.cursor(); cursor.execute(sql)\n"
    "result = sum(batch.num_rows for batch in cursor.fetch_record_batch()); cursor.close(); connection.close()",
    "export: smkit": "export(source.schema(), source.batches()); result = pq.ParquetFile(path).metadata.num_rows",
    "export: smkit adbc": "export(source.schema(), source.batches()); result = pq.ParquetFile(path).metadata.num_rows",
    "export: smkit parts": "export(source.schema(), source.batches()); result = pq.ParquetFile(path).metadata.num_rows",
    "export: awswrangler": "writer = None\n"
    "for chunk in wr.postgresql.read_sql_query(sql, connection, chunksize=65536):\n"
    "    table = pa.Table.from_pandas(chunk, preserve_index=False)\n"
    "    writer = writer or pq.ParquetWriter(path, table.schema)\n"
    "    writer.write_table(table)\n"
    "writer.close(); result = pq.ParquetFile(path).metadata.num_rows",
    "export: connectorx": "reader = cx.read_sql(uri('postgresql'), sql, return_type='arrow_stream', batch_size=65536)\n"
    "export(reader.schema, reader); result = pq.ParquetFile(path).metadata.num_rows",
}
#: What is compared with what, and the ratio that is allowed: at most, or at least where it is negative.
TARGETS: list[tuple[str, str, float]] = [
    ("read: pandas", "read: smkit", -8.0),
    ("read: awswrangler", "read: smkit", -8.0),
    ("fetch: smkit adbc", "fetch: adbc", 1.1),
    ("export: awswrangler", "export: smkit", -8.0),
    ("export: smkit", "export: connectorx", 1.6),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where Parquet files are written")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(prefix="smkit-bench-", dir=options.folder) as folder:
        return with_server(lambda pg: compare(pg, options.rows, options.runs, Path(folder)))


def with_server(work: Callable[[Any], int]) -> int:
    """Run with the fixture of the tests."""
    from tests.fixtures_postgres import pg

    servers = pg.__wrapped__()
    try:
        return work(next(servers))
    finally:
        servers.close()


def compare(pg: Any, rows: int, runs: int, folder: Path) -> int:
    pg.run("DROP TABLE IF EXISTS smkit_bench")
    pg.run(TABLE.format(rows=rows))
    pg.run("VACUUM ANALYZE smkit_bench")
    try:
        return measure(pg, rows, runs, folder)
    finally:
        pg.run("DROP TABLE smkit_bench")


def measure(pg: Any, rows: int, runs: int, folder: Path) -> int:
    server = {name: getattr(pg, name) for name in ("host", "port", "database", "user", "password", "sslmode")}
    absent = [name for name in ("awswrangler", "connectorx") if importlib.util.find_spec(name) is None]
    names = [name for name in WORK if name.partition(": ")[2] not in absent]
    times: dict[str, list[float]] = {name: [] for name in names}
    # In turn, so that a busy machine slows all alike.
    for _ in range(runs):
        for name in names:
            seconds, _ = run(name, [server, SQL, str(folder / "rows.parquet")], rows)
            times[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    print(f"{rows:,} rows x 12 columns, median of {runs}; not installed: {', '.join(absent) or 'none'}")
    for name, seconds in medians.items():
        print(f"  {name:22} {seconds:7.2f} s")
    missed = False
    for what, against, target in TARGETS:
        if what in medians and against in medians:
            # As "at most": where a factor is wanted, the inverse is limited.
            one, other, limit = (what, against, target) if target > 0 else (against, what, -1 / target)
            ratio = medians[one] / medians[other]
            report(f"{one} / {other}", ratio, round(limit, 3))
            if target < 0:
                print(f"  that is {1 / ratio:.1f} times as fast")
            missed = missed or ratio > limit
    for name in ("export: smkit", "export: smkit adbc", "export: smkit parts"):
        peaks = []
        for times in (1, 4):
            sql = f"SELECT smkit_bench.* FROM smkit_bench CROSS JOIN generate_series(1, {times})"
            peaks.append(run(name, [server, sql, str(folder / "rows.parquet")], rows * times)[1])
        verdict = peaks[1] <= min(peaks[0] * 1.1, MEMORY_LIMIT_MB)
        print(
            f"memory, {name}: {peaks[0]:.0f} MB, four times the rows {peaks[1]:.0f} MB {'ok' if verdict else 'MISSED'}"
        )
        missed = missed or not verdict
    return int(missed)


def run(name: str, given: list[Any], rows: int | None) -> tuple[float, float]:
    """Return the seconds that the work took, and the peak of the memory in MB."""
    script = "\n".join(
        [
            PREPARE,
            IMPORTS[name.partition(": ")[2]],
            "start = time.perf_counter()",
            WORK[name],
            "seconds = time.perf_counter() - start",
            "print(json.dumps([seconds, result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))",
        ]
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV_", "SMKIT_", "PG"))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(given),
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        env=environment,
    )
    seconds, result, peak = json.loads(done.stdout)
    if rows is not None and result != rows:
        raise SystemExit(f"{name} read {result} rows instead of {rows}: the comparison would be unfair")
    return seconds, peak / (1024 if sys.platform != "darwin" else 1024 * 1024)


if __name__ == "__main__":
    sys.exit(main())
