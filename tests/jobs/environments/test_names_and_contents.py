"""The names of environments, and the digest of what one holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smkit.errors import ConfigError
from smkit.jobs.containers import image, known_versions
from smkit.jobs.environments import EnvironmentName, describe, environments_folder, known_names, parse_environment
from smkit.jobs.environments.contents import Contents, contents_of

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [str(name) for name in known_names()]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_which_image_and_how_much_of_it(name: str) -> None:
    parsed = parse_environment(name)
    assert str(parsed) == name
    assert parsed == EnvironmentName(name.partition("[")[0], toolkits=name.endswith("[toolkits]"))


def test_there_are_two_of_each_image() -> None:
    assert [name.framework_version for name in known_names()] == [one for one in known_versions() for _ in range(2)]
    assert len(set(NAMES)) == 12


@given(st.text() | st.sampled_from(NAMES).flatmap(lambda name: st.sampled_from([name + " ", name + "\n", f"{name}[]"])))
def test_any_other_name_is_refused(name: str) -> None:
    if name not in NAMES:
        with pytest.raises(ConfigError, match="known are"):
            parse_environment(name) if name != "host" else pytest.fail("known are")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("1.2", "did you mean '1.2-1'?"),
        ("1.4-2-py311", "did you mean '1.4-2-py312'?"),
        ("1.2-1[toolkit]", "did you mean '1.2-1[toolkits]'?"),
        ("1.2-1[TOOLKITS]", "known are 0.23-1, 1.0-1"),
        ("host", "is the Python that runs smkit"),
    ],
)
def test_an_error_says_what_is_allowed(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_environment(name)
    assert said in str(caught.value)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("version", known_versions())
def test_the_core_is_what_scripts_use(version: str) -> None:
    contents = contents_of(EnvironmentName(version))
    pins = image(version).packages
    assert contents.python == image(version).python
    assert contents.pins == pins
    names = {requirement.partition("==")[0] for requirement in contents.requirements}
    core = {"numpy", "pandas", "scipy", "scikit-learn", "joblib", "pyarrow", "boto3", "pip", "setuptools"}
    assert names == core | ({"wheel"} & set(pins))
    assert set(contents.requirements) <= set(contents.constraints.splitlines())


@pytest.mark.parametrize("version", known_versions())
def test_the_toolkits_are_the_whole_list(version: str) -> None:
    contents = contents_of(EnvironmentName(version, toolkits=True))
    assert set(contents.requirements) == set(contents.constraints.splitlines())
    assert len(contents.requirements) == len(image(version).packages)
    assert {f"sagemaker-training=={image(version).toolkit}"} <= set(contents.requirements)


def test_the_digest_is_of_all_that_is_installed() -> None:
    contents = Contents((3, 9), {"a": "1", "b": "2"}, ("a",))
    others = [
        Contents((3, 10), {"a": "1", "b": "2"}, ("a",)),
        Contents((3, 9), {"a": "1", "b": "3"}, ("a",)),
        Contents((3, 9), {"a": "1"}, ("a",)),
        Contents((3, 9), {"a": "1", "b": "2"}, ("a", "b")),
        Contents((3, 9), {"a": "1", "b": "2"}),
    ]
    assert len({contents.digest, *(other.digest for other in others)}) == 6
    assert Contents((3, 9), {"b": "2", "a": "1"}, ("a",)).digest == contents.digest


def test_another_platform_and_another_layout_have_environments_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = Contents((3, 9), {"a": "1"})
    before = contents.digest
    monkeypatch.setattr("sys.platform", "plan9")
    other = contents.digest
    monkeypatch.setattr("smkit.jobs.environments.contents.LAYOUT", 99)
    assert len({before, other, contents.digest}) == 3


def test_what_differs_from_the_pins_is_told() -> None:
    contents = Contents((3, 9), {"a": "1", "b": "2", "c": "3"}, ("a", "b"))
    assert contents.differences({"a": "1", "b": "2", "needed-by-b": "7"}) == []
    assert contents.differences({"a": "1", "c": "4"}) == ["b is missing", "c is 4, not 3"]


def test_environments_lie_below_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environments_folder() == tmp_path / "smkit" / "environments"
    environment = describe("1.2-1[toolkits]")
    assert environment.folder.parent == environments_folder()
    assert environment.folder.name == f"1.2-1-toolkits-{environment.digest[:16]}"
    assert environment.python == environment.folder / "bin" / "python"
    assert (environment.python_version, environment.is_built, environment.built) == ("3.9", False, None)
    assert not environments_folder().exists()
