"""YAML is read as its author means it, or refused in one line: where, what was read, how to write it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from written import BASE, load, messages, refusal

from gotd_ray import config
from gotd_ray.config.reading import Unclear, read
from gotd_ray.errors import UserError


@pytest.mark.parametrize(("text", "said"), messages("twice.txt"))
def test_a_key_that_stands_twice_is_refused_with_both_lines(text: str, said: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, text) == said


def test_an_alias_is_a_copy_and_a_key_of_ones_own_wins_over_a_merged_one(tmp_path: Path) -> None:
    text = "out: o\ncorpus: &c {paths: c, sample: 0.5}\ntarget: {<<: *c, sample: 1.0}\nreference: *c\n"
    run = load(tmp_path, text, "corpus.max_bad_rows=0.5")
    assert (run.corpus.sample, run.target.sample, run.target.paths) == (0.5, 1.0, ["c"])
    assert run.reference and (run.corpus.max_bad_rows, run.reference.max_bad_rows) == (0.5, 0.2)


@pytest.mark.parametrize(
    ("written", "taken", "instead"),
    [
        ("yes", "true", "true, or 'yes'"),
        ("no", "false", "false, or 'no'"),
        ("On", "true", "true, or 'On'"),
        ("OFF", "false", "false, or 'OFF'"),
        ("~", "null", "null, or '~'"),
        ("010", "8, in base 8", "8, or '010'"),
        ("-017", "-15, in base 8", "-15, or '-017'"),
        ("0o17", "15, in base 8", "15, or '0o17'"),
        ("08", "a text or as 8", "8, or '08'"),
        ("0x10", "16", "16, or '0x10'"),
        ("0b101", "5", "5, or '0b101'"),
        ("1_0", "10", "10, or '1_0'"),
        ("1_000.5", "1000.5", "1000.5, or '1_000.5'"),
        ("1:30", "90", "90, or '1:30'"),
        ("12:30:45.5", "45045.5", "45045.5, or '12:30:45.5'"),
        ("2024-01-31", "a date", "'2024-01-31'"),
        ("2024-02-31", "a date", "'2024-02-31'"),
        ("2024-01-31T10:00:00Z", "a date", "'2024-01-31T10:00:00Z'"),
        (".inf", "infinity", "'.inf'"),
        ("-.Inf", "infinity", "'-.Inf'"),
        (".nan", "NaN", "'.nan'"),
    ],
)
@pytest.mark.parametrize("key", ["seed", "name", "encoder.normalize", "solve.epsilon", "reference.exclude_sources"])
def test_what_readers_of_yaml_take_for_two_things_is_refused(
    key: str, written: str, taken: str, instead: str, tmp_path: Path
) -> None:
    value, place = (f"[{written}]", f"{key}.0") if key.endswith("sources") else (written, key)
    said = f"{place} is {written}, which YAML reads as {taken}. Write {instead} in quotes for a text."
    assert refusal(tmp_path, BASE, f"{key}={value}") == f"--set {key}: {said}"
    section, _, last = key.rpartition(".")
    line = f"{section}: {{{last}: {value}}}\n" if section else f"{last}: {value}\n"
    assert refusal(tmp_path, BASE + line) == f"run.yaml, line 4: {said}"
    assert read(f"a: '{written}'").value == {"a": written}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *(("1e-4", 1e-4), ("1E-4", 1e-4), ("2.5e-3", 0.0025), (".5", 0.5), ("5.", 5.0), ("+0.25", 0.25), ("8.0", 8.0)),
        *(("1e6", 1_000_000), ("2.5e3", 2500), ("1_000", 1000), ("-12_345_678", -12345678), ("+5", 5), ("0", 0)),
        *(("true", True), ("False", False), ("null", None), ("y", "y"), ("n", "n"), ("1,000", "1,000"), ("<", "<")),
        *(("1.2.3", "1.2.3"), ("10.0.0.1:6379", "10.0.0.1:6379"), ("e5", "e5"), ("'8'", "8"), ('"no"', "no")),
    ],
)
def test_what_is_obviously_meant_is_taken(written: str, value: object) -> None:
    found = read(f"a: {written}").value["a"]
    assert (found, type(found)) == (value, type(value))


@given(st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none())
def test_what_pyyaml_writes_is_read_as_it_was(value: object) -> None:
    assert read(yaml.safe_dump({"a": [value]})).value == {"a": [value]}


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20))
def test_a_text_that_pyyaml_writes_is_the_same_text(value: str) -> None:
    found = read(yaml.safe_dump({"a": value})).value["a"]
    # PyYAML puts no quotes around 1e3, which is a number here; where a text is wanted, a number is refused.
    assert found == value or (isinstance(found, float) and "e" in value.lower() and float(value) == found)


@given(st.text("019:_.-+eExob~nyfaN ", min_size=1, max_size=8))
def test_a_plain_word_is_read_as_by_pyyaml_or_refused_or_an_exponent(written: str) -> None:
    try:
        theirs, ours = yaml.safe_load(f"a: {written}"), read(f"a: {written}").value
    except (Unclear, yaml.YAMLError, ValueError):
        return
    if ours != theirs:
        assert isinstance(theirs["a"], str) and float(theirs["a"]) == ours["a"]


@pytest.mark.parametrize(("text", "said"), messages("broken.txt"))
def test_a_file_that_is_no_config_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, text) == said


NOTHING = "run.yaml holds nothing, not keys and values. See jobs/demo.yaml for an example."
OTHER_BYTES = "run.yaml is not UTF-8: line {} holds other bytes. Save it as UTF-8."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", NOTHING),
        ("# nothing\n", NOTHING),
        (BASE.encode() + b"name: caf\xe9\n", OTHER_BYTES.format(4)),
        (BASE.encode("utf-16"), OTHER_BYTES.format(1)),
        (
            "out: x\ncorpus:\n\tpaths: c\n",
            "run.yaml, line 3: not valid YAML: a tab stands where YAML wants spaces. Indent with spaces.",
        ),
        (BASE + "name: a\x1b[31m\n", "run.yaml: not valid YAML: it holds the character '\\x1b'. Take it out."),
        ("out: [", "run.yaml, line 1: not valid YAML: expected the node content, but found '<stream end>'."),
        ("a: " + "[" * 3000, "run.yaml: it is nested more than 50 deep. Write it flatter."),
        (
            "#" * 5_000_001,
            "run.yaml has more than 5,000,000 bytes, which is no config. Give the path of a YAML file.",
        ),
        (
            BASE + f"seed: {'9' * 5000}\n",
            "run.yaml, line 4: seed is 99999999999999999999... (5000 characters), which no number of 64 bits holds. "
            "Write one that is nearer to 1.",
        ),
    ],
    ids=["empty", "comment", "latin-1", "utf-16", "tab", "escape code", "cut short", "deep", "large", "digits"],
)
def test_other_bytes_are_refused_in_one_line(text: str | bytes, said: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, text) == said


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + BASE.encode(),
        BASE.replace("\n", "\r\n").encode(),
        b"---\n" + BASE.encode() + b"...\n",
        BASE.replace("out: ", "out:    ").encode() + b"\n\n  # ok\n",
    ],
    ids=["BOM", "Windows", "marks", "blanks"],
)
def test_other_ways_to_write_the_same_file(text: bytes, tmp_path: Path) -> None:
    assert load(tmp_path, text) == load(tmp_path, BASE)


def test_a_folder_or_nothing_is_no_config(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none.yaml", "No such file or directory")):
        with pytest.raises(UserError) as caught:
            config.load(path)
        assert str(caught.value) == f"cannot read the config '{path}': {reason}. Give the path of a YAML file."


@pytest.mark.parametrize(("sets", "said"), messages("sets.txt"))
def test_a_set_that_is_wrong_is_refused_in_one_line(sets: str, said: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, BASE + "seed: 3\n", *sets.splitlines()) == said


def test_set_reads_as_the_file_does(tmp_path: Path) -> None:
    sets = ["select={budget: 7}", "select.ngram=5", "survey.keep=2", "solve.epsilon=1e-2", "contrast.paths=[a, b]"]
    run = load(tmp_path, BASE + "survey: null\nselect: {budget: 9, mix: 0.5}\n", *sets)
    assert (run.select.budget, run.select.ngram, run.select.mix) == (7, 5, 0.2)
    assert run.survey and run.survey.keep == 2 and run.contrast and run.contrast.paths == ["a", "b"]
    assert run.solve.epsilon == 0.01
    assert load(tmp_path, BASE, "encoder.prefix='passage: '", 'corpus.paths="@l.txt"').encoder.prefix == "passage: "
