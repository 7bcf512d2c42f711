"""What jobs are made of, for hypothesis: whatever quoting, JSON, argv or the variables could get wrong."""

from __future__ import annotations

import unicodedata

from hypothesis import strategies as st

# Those of Unicode 3.2 look the same to every Python; repr and upper depend on the newest that a Python knows.
OLD_CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"]).filter(
    lambda character: unicodedata.ucd_3_2_0.category(character) != "Cn"
)
#: What quoting, JSON, argv or upper could get wrong.
HARD_CHARACTERS = st.sampled_from("aZ0 _-.=,\"'\\$`&;|*~#%!{}[]\n\t\r\x1b\x7f\xa0éßıſ漢\u2028☕\U0001f600")
TEXT = st.text(HARD_CHARACTERS | OLD_CHARACTERS, max_size=12) | st.sampled_from(
    ['"', '""', '"q"', "'q'", "--x", "-", "", "null", "None", "true", "5", "1e3", "NaN", "[1]", '{"a": 1}', "a=1,b=2"]
)
NUMBERS = (
    st.integers()
    | st.integers(min_value=10**15, max_value=10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.1, -0.0, 1e-7, 1e22, 1e16, 5e-324])
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
# A variable's name holds no "=", and JobSpec refuses such a hyperparameter.
NAMES = st.text(HARD_CHARACTERS.filter(lambda character: character != "="), min_size=1, max_size=8) | st.sampled_from(
    [
        "a",
        "A",
        "k",
        "n-estimators",
        "n_estimators",
        "N-Estimators",
        "model_dir",
        "hp_a",
        "ſ",
        "ß",
        "-",
        "--",
        "mp_parameters",
    ]
)
#: Names that never reach the script, or reach it elsewhere.
RESERVED = st.sampled_from(["sagemaker_custom", "sagemaker_", "_tuning_objective_metric", "default_user_module_name"])
CHANNEL = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,6}", fullmatch=True) | st.sampled_from(["train", "Train", "s"])
CHANNELS = st.lists(CHANNEL, max_size=3, unique=True)
VARIABLES = st.dictionaries(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,6}", fullmatch=True).filter(lambda name: not name.startswith("LC_"))
    | st.sampled_from(["SM_MODEL_DIR", "SM_HP_A", "SM_FOO", "CURRENT_HOST", "SAGEMAKER_JOB_NAME", "USE_SMDEBUG"]),
    TEXT,
    max_size=3,
)
