"""Lists of versions, comparisons, and versions that read their manifest on first use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import smkit
from smkit.artifacts.comparison import Comparison, Difference
from smkit.display import aligned, printable, shortened, shown_size, width_of
from smkit.errors import IntegrityError, ModelError, VersionNotFound
from tests.artifacts.helpers import Job, fitted, model_bytes, packed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def models(tmp_path: Path) -> smkit.ArtifactStore:
    return smkit.ArtifactStore(smkit.Settings(root=str(tmp_path / "root")))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(packed(("model.joblib", model_bytes(2.0)), ("deep/notes.txt", b"inside")))
    return path


class CountingStore:
    """Counts how often each operation of a store is called, and for which folder."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.calls: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if name not in {"get", "open", "scan", "children"}:
            return value

        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, str(arguments[0])))
            return value(*arguments, **options)

        return counted


@pytest.fixture
def counted(models: smkit.ArtifactStore) -> tuple[smkit.ArtifactStore, CountingStore]:
    models.publish("warm", fitted())
    fresh = smkit.ArtifactStore(models._open()[0])
    settings, log = fresh._open()
    store = CountingStore(log.store)
    from smkit.versioning import VersionLog

    fresh._opened = settings, VersionLog(store, log.kind, log.what, summary_keys=log.segments._keys)  # type: ignore[arg-type]
    return fresh, store


def test_a_list_shows_without_a_read_for_each_version(
    models: smkit.ArtifactStore, counted: tuple[smkit.ArtifactStore, CountingStore]
) -> None:
    for number in range(1, 121):
        models.publish("houses", fitted(float(number)), metrics={"test:rmse": 1 / number}, notes=f"note {number}")
    fresh, store = counted
    versions = fresh.versions("houses")
    assert len(versions) == 120
    assert versions[0].metrics == {"test:rmse": 1 / 120}
    assert versions[-1].hyperparameters["alpha"] == 1.0
    frame = versions.to_frame()
    # The newest twenty are in no segment yet.
    assert sum("/versions/" in key for name, key in store.calls if name in {"get", "open"}) <= 20 * 2
    assert len(frame) == 120
    before = len(store.calls)
    assert versions[5].environment["python"]
    assert versions[5].manifest.files
    assert len(store.calls) > before


def test_a_frame_has_a_row_for_each_version(models: smkit.ArtifactStore, archive: Path) -> None:
    models.publish("houses", Job(archive), notes="first")
    models.publish("houses", fitted(3.0), metrics={"test:mae": 1.5})
    models.promote("houses@1", "production")
    models.promote("houses@1", "staging")
    frame = models.versions("houses").to_frame()
    assert frame["version"].tolist() == [2, 1]
    assert str(frame["created_at"].dt.tz) == "UTC"
    assert frame["created_at"].is_monotonic_decreasing
    assert frame["aliases"].tolist() == ["", "production, staging"]
    assert frame["datasets"].tolist() == ["", "houses@1"]
    assert frame["job"].tolist()[1] == "Train-1"
    assert frame["notes"].tolist() == ["", "first"]
    assert frame["metrics.test:mae"].isna().tolist() == [False, True]
    assert frame["metrics.test:rmse"].tolist()[1] == 0.5
    assert frame["hyperparameters.alpha"].tolist() == [3.0, 2.0]
    assert (frame["size"] > 0).all()
    assert frame.dtypes["metrics.test:mae"] == "float64"


def test_no_versions_are_an_empty_frame(models: smkit.ArtifactStore) -> None:
    versions = models.versions("houses")
    assert versions == []
    frame = versions.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns)[:2] == ["version", "created_at"]
    assert len(frame) == 0
    assert "none" in repr(versions)


def test_a_list_is_a_sequence(models: smkit.ArtifactStore) -> None:
    for alpha in (1.0, 2.0, 3.0):
        models.publish("houses", fitted(alpha))
    versions = models.versions("houses")
    assert [version.version for version in versions[1:]] == [2, 1]
    assert versions[0] in versions
    assert versions[0] == models.get("houses@3")
    assert hash(versions[0]) == hash(models.get("houses@3"))
    assert versions[0] != versions[1]
    assert versions == models.versions("houses")
    assert versions != versions[1:]
    assert repr(versions) == "<ModelVersions of 'houses': 3, houses@3 to houses@1>"
    assert repr(versions[0]).startswith("<ModelVersion houses@3")


def test_what_a_publisher_wrote_is_escaped_in_html(models: smkit.ArtifactStore) -> None:
    models.publish("houses", fitted(), notes="<script>alert(1)</script>", metrics={"<b>": 1.0})
    models.publish("houses", fitted(2.0), notes="\x1b[31mred")
    for page in (models.versions("houses")._repr_html_(), models.compare("houses@1", "houses@2")._repr_html_()):
        assert "<script>" not in page
        assert "&lt;script&gt;" in page
        assert "<b>" not in page
        assert "\x1b" not in page


def test_two_versions_side_by_side(models: smkit.ArtifactStore, archive: Path) -> None:
    models.publish("houses", Job(archive), metrics={"test:rmse": 0.5, "same": 1.0})
    models.publish("houses", fitted(3.0), metrics={"test:rmse": 0.25, "same": 1.0})
    comparison = models.compare("houses@1", "houses@2")
    lines = {(line.section, line.name): line for line in comparison.lines}
    assert lines["metrics", "test:rmse"].change == -0.25
    assert lines["metrics", "same"].is_same
    assert (lines["hyperparameters", "alpha"].left, lines["hyperparameters", "alpha"].right) == (2.0, 3.0)
    assert lines["data", "train.dataset"].right is None
    assert lines["code", "git_commit"].left == "2" * 40
    text = str(comparison)
    assert "*  test:rmse" in text
    assert "-0.25 (-50.0%)" in text
    assert "   same" in text
    assert text.index("metrics") < text.index("hyperparameters") < text.index("published")
    assert max(map(width_of, comparison.to_text(width=80).splitlines())) <= 80
    assert json.loads(json.dumps(comparison.to_dict()))["left"] == "houses@1"
    assert all(line.is_same for line in models.compare("houses@1", "houses@1").lines)


def test_values_that_differ_look_different() -> None:
    long = "a" * 100
    for left, right in [(long + "x", long + "y"), (long, long + "z"), (1.00000001, 1.00000002), (True, 1)]:
        line = Difference("code", "it", left, right)
        assert not line.is_same
        shown_left, shown_right, _ = line._cells()
        assert shown_left != shown_right
    assert Comparison("a@1", "a@2", ()).differences == ()


def test_a_version_is_found_by_its_job(models: smkit.ArtifactStore, archive: Path) -> None:
    models.publish("houses", Job(archive))
    models.publish("houses", Job(archive), force=True)
    models.publish("flats", Job(archive, name="Train-10"))
    assert models.get("Train-1").ref == "houses@2"
    assert models.load("Train-10", allow_pickle=True).alpha == 2.0
    with pytest.raises(VersionNotFound, match="no model 'train-1'"):
        models.get("train-1")
    models.publish("flats", Job(archive), force=True)
    with pytest.raises(ModelError, match=r"was published as .*: name one of them"):
        models.load("Train-1", allow_pickle=True)


def test_a_model_goes_before_a_job_of_the_same_name(models: smkit.ArtifactStore, archive: Path) -> None:
    models.publish("houses", Job(archive, name="flats"))
    assert models.get("flats").ref == "houses@1"
    models.publish("flats", fitted(9.0))
    assert models.get("flats").ref == "flats@1"


def test_any_file_can_be_opened(models: smkit.ArtifactStore, archive: Path) -> None:
    version = models.publish("houses", archive)
    with models.open("houses", "deep/notes.txt") as stream:
        assert stream.read() == b"inside"
        stream.seek(2)
        assert stream.read() == b"side"
    with models.open("houses@1", "model.tar.gz") as stream:
        assert stream.read() == archive.read_bytes()
    with models.open(version, "model.joblib") as stream:
        assert stream.read() == model_bytes(2.0)
    with pytest.raises(ModelError, match=r"holds no file 'model\.jobli'; did you mean 'model\.joblib'"):
        models.open("houses", "model.jobli")


def test_a_changed_file_is_not_opened(models: smkit.ArtifactStore, archive: Path) -> None:
    from pathlib import Path

    version = models.publish("houses", archive)
    (Path(version.uri) / "model.tar.gz").write_bytes(packed(("deep/notes.txt", b"other!")))
    for file in ("deep/notes.txt", "model.tar.gz"):
        with pytest.raises(IntegrityError):
            models.open("houses", file)


@given(text=st.text(max_size=40), width=st.integers(1, 30))
def test_text_is_cut_to_columns(text: str, width: int) -> None:
    assert width_of(shortened(text, width)) <= width
    assert printable(text).isprintable()


@given(
    rows=st.lists(st.tuples(*[st.text(st.characters(categories=["L", "N"]), max_size=30)] * 3), min_size=1, max_size=5),
    width=st.integers(30, 100),
)
def test_a_table_fits_its_terminal(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = aligned(rows, width=width)
    assert len(lines) == len(rows)
    assert max(map(width_of, lines)) <= width


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3.0 TiB")]
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert shown_size(size) == text
