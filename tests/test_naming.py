from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from smkit import naming
from smkit.errors import ConfigError, InvalidNameError
from smkit.naming import Reference, check_alias, check_channel, check_job_name, check_name, parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable


def check_dataset_name(name: str) -> str:
    return check_name(name, "dataset")


CHECKS = [check_dataset_name, check_alias, check_job_name, check_channel]


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (check_dataset_name, "h"),
        (check_dataset_name, "houses_2026-01"),
        (check_dataset_name, "7" + "x" * 62),
        (check_alias, "production"),
        (check_alias, "2026-01"),
        (check_job_name, "Houses-2026-01-01"),
        (check_job_name, "a--b"),
        (check_job_name, "a" * 63),
        (check_channel, "train"),
        (check_channel, "Train.v1_a-b"),
        (check_channel, "x" * 64),
    ],
)
def test_valid_names_are_returned_unchanged(check: Callable[[str], str], name: str) -> None:
    assert check(name) == name


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (check_dataset_name, ""),
        (check_dataset_name, "-a"),
        (check_dataset_name, "a" * 64),
        (check_dataset_name, "Houses"),
        (check_dataset_name, "häuser"),
        (check_dataset_name, "a\n"),
        (check_dataset_name, "a/b"),
        (check_dataset_name, ".."),
        (check_dataset_name, "a@1"),
        (check_dataset_name, None),
        (check_dataset_name, 3),
        (check_alias, "latest"),
        (check_alias, "12"),
        (check_alias, "v12"),
        (check_alias, "Prod"),
        (check_alias, b"prod"),
        (check_job_name, "a_b"),
        (check_job_name, "-a"),
        (check_job_name, "a-"),
        (check_job_name, "a" * 64),
        (check_job_name, "a" + "-" * 62 + "b"),
        (check_job_name, None),
        (check_channel, "."),
        (check_channel, ".."),
        (check_channel, "a b"),
        (check_channel, "x" * 65),
        (check_channel, None),
    ],
)
def test_an_invalid_name_is_an_error_that_shows_it(check: Callable[[str], str], name: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        check(name)
    assert repr(name) in str(caught.value)
    assert isinstance(caught.value, ConfigError)
    assert isinstance(caught.value, ValueError)


def test_a_suggestion_keeps_what_it_can() -> None:
    with pytest.raises(InvalidNameError, match="'house-prices-2026' would do"):
        check_name("House Prices (2026)", "dataset")
    with pytest.raises(InvalidNameError, match="'house_prices' would do"):
        check_name("House_Prices", "dataset")
    with pytest.raises(InvalidNameError, match="'Houses-2026' would do"):
        check_job_name("Houses_2026")
    with pytest.raises(InvalidNameError, match="'my-data' would do"):
        check_channel("my data")


def test_the_article_fits_the_noun() -> None:
    with pytest.raises(InvalidNameError, match="is not an alias:"):
        check_alias("")
    with pytest.raises(InvalidNameError, match="is not an artifact name:"):
        check_name("", "artifact")


@given(text=st.text(max_size=80) | st.text("aA0-_. @", max_size=80), check=st.sampled_from(CHECKS))
def test_a_suggestion_is_always_valid(text: str, check: Callable[[str], str]) -> None:
    try:
        assert check(text) == text
    except InvalidNameError as error:
        found = re.search(r"; '([^']*)' would do$", str(error))
        if found:
            assert check(found[1]) == found[1]


@given(st.text("B0 _-", max_size=62))
def test_text_with_a_letter_always_gets_a_suggestion(text: str) -> None:
    # The capital breaks the rule, wherever it is.
    with pytest.raises(InvalidNameError, match="would do"):
        check_name("Q" + text, "dataset")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("houses", Reference("houses", "latest")),
        ("houses@latest", Reference("houses", "latest")),
        ("houses@3", Reference("houses", 3)),
        ("houses@003", Reference("houses", 3)),
        ("houses@9999999999", Reference("houses", 9_999_999_999)),
        ("houses@production", Reference("houses", "production")),
        ("houses@v3-candidate", Reference("houses", "v3-candidate")),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    assert parse_reference(text, "model") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("houses@0", "versions count from 1"),
        ("houses@00", "versions count from 1"),
        ("houses@10000000000", "versions count from 1 to 9999999999"),
        ("houses@" + "9" * 5000, "versions count from 1 to 9999999999"),
        ("houses@٣", "versions count from 1"),
        ("houses@", "'' is not an alias"),
        ("houses@-1", "'-1' is not an alias"),
        ("houses@3@4", "'3@4' is not an alias"),
        ("@3", "'' is not a model name"),
        ("Houses@3", "'Houses' is not a model name"),
        (3, "3 is not a model reference: expected 'name@3'"),
        (None, "None is not a model reference"),
    ],
)
def test_a_malformed_reference_is_an_error(text: str, message: str) -> None:
    with pytest.raises(InvalidNameError, match=re.escape(message)):
        parse_reference(text, "model")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("churn:1", "churn@1"),
        ("churn@v1", "churn@1"),
        ("churn@V01", "churn@1"),
        ("churn:v2", "churn@2"),
        ("churn/3", "churn@3"),
        ("churn:production", "churn@production"),
        ("churn:latest", "churn@latest"),
    ],
)
def test_a_reference_of_another_tool_gets_the_right_one(text: str, meant: str) -> None:
    with pytest.raises(InvalidNameError, match=rf"'{text}' is not a model reference: did you mean '{meant}'\?"):
        parse_reference(text, "model")
    assert str(parse_reference(meant, "model")) == meant


names = st.from_regex(naming._NAME, fullmatch=True)


@given(name=names, version=st.integers(1, 9_999_999_999) | names)
def test_a_reference_reads_back_what_it_prints(name: str, version: int | str) -> None:
    if isinstance(version, str):
        assume(not naming._LIKE_VERSION.fullmatch(version))
    if isinstance(version, str) and version.isdigit():
        version = int(version) or 1
        version = min(version, 9_999_999_999)
    reference = Reference(name, version)
    assert parse_reference(str(reference), "dataset") == reference
