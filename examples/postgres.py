"""From a PostgreSQL query to a versioned dataset, on this machine.

    export SMKIT_POSTGRES__HOST=... SMKIT_POSTGRES__DATABASE=... SMKIT_POSTGRES__USER=... SMKIT_POSTGRES__PASSWORD=...
    python examples/postgres.py

The query makes up its rows, so any PostgreSQL will do; nothing is written to the database.
"""

import sys

import smkit

# :houses is bound by the server; a value never becomes part of the SQL.
SQL = """
SELECT g                                              AS house_id,
       (40 + g * 37 % 1600 / 10.0)::numeric(6, 1)     AS area,
       date '2026-01-01' + g % 365                    AS sold,
       (4000 * (40 + g * 37 % 1600 / 10.0) + g * 7919 % 20000)::float8 AS price
FROM generate_series(1, CAST(:houses AS int4)) g
"""


def main() -> int:
    settings = smkit.Settings()
    source = smkit.PostgresSource(SQL, params={"houses": 1000}, settings=settings)
    try:
        print("columns  ", ", ".join(f"{field.name} {field.type}" for field in source.schema()))
        dataset = (
            smkit.DatasetBuilder("houses", source, settings)
            .clean(drop_missing=["price"], drop_duplicates=True)
            .check(smkit.Schema({"price": smkit.Column("float64", min=0)}))
            .split(test=0.2, by="house_id")
            .build()
        )
    except smkit.errors.ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    rows = ", ".join(f"{count} {split}" for split, count in dataset.rows.items())
    print(f"dataset   {dataset.ref}: {rows} rows")
    print(dataset.read("train").head(3).to_string(index=False))
    print(f"all of it {settings.root}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
