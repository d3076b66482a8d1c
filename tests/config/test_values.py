"""Values have their type and their limits, paths are expanded once, and credentials are never shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from written import BASE, MODEL, load, messages, refusal

from gotd_ray import config
from gotd_ray.config.base import Section


@pytest.mark.parametrize(("text", "said"), messages("values.txt"))
def test_a_value_of_another_type_or_beyond_its_limit_is_refused(text: str, said: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, BASE + MODEL + text) in (f"run.yaml, line 5: {said}", f"run.yaml: {said}")


def test_all_faults_are_told_at_once_in_one_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "select: {budget: 0}\nseed: x\n") == (
        "run.yaml: 'out' is missing. Add it: folder of the run's results, on any filesystem. "
        "run.yaml, line 2: seed is 'x': input should be a whole number. Write it in digits and without quotes, such as "
        "1000. "
        "run.yaml: 'corpus' is missing. Add it: the documents to choose from. "
        "run.yaml: 'target' is missing. Add it: texts of the task, some hundreds to thousands. "
        "run.yaml, line 1: select.budget is 0: input should be greater than or equal to 1. Raise it."
    )
    assert refusal(tmp_path, BASE + "".join(f"q{n}: 1\n" for n in range(9))).endswith(" There are more.")


def numbers(schema: dict[str, Any], where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every number in a JSON schema, and where it stands."""
    if schema.get("type") in ("integer", "number"):
        yield where, schema
    for key, value in schema.items():
        for name, part in value.items() if key in ("properties", "$defs") else ():
            yield from numbers(part, f"{where}.{name}")
        for part in value if key == "anyOf" else [value] if key in ("items", "additionalProperties") else ():
            if isinstance(part, dict):
                yield from numbers(part, where)


SECTIONS = {kind.__name__: kind for base in Section.__subclasses__() for kind in (base, *base.__subclasses__())}
NUMBERS = dict(numbers(config.Run.model_json_schema()))


def test_numbers_are_found() -> None:
    assert {".seed", ".Select.budget", ".Compare.seeds", ".Text.proportions", ".Training.learning_rate"} <= set(NUMBERS)


@pytest.mark.parametrize("where", NUMBERS)
def test_every_number_has_a_lower_and_an_upper_limit_that_64_bits_hold(where: str) -> None:
    found = NUMBERS[where]
    low = found.get("minimum", found.get("exclusiveMinimum"))
    high = found.get("maximum", found.get("exclusiveMaximum"))
    assert low is not None and high is not None and 0 <= low < high <= 10**12


@pytest.mark.parametrize("where", [where for where, found in NUMBERS.items() if "seed" in where.lower()])
def test_no_seed_is_beyond_what_numpy_takes(where: str) -> None:
    assert NUMBERS[where]["maximum"] == 2**32 - 1


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("where", [where for where, found in NUMBERS.items() if found["type"] == "number"])
def test_no_number_is_infinite_or_nan(where: str, value: float) -> None:
    _, section, key = where.split(".")
    given = {"a": value} if key in ("proportions", "wanted") else value
    with pytest.raises(ValueError, match=rf"{key}\S*\n  Input should be a finite number"):
        SECTIONS[section].model_validate({"paths": "x", key: given} if section == "Text" else {key: given})


SECRETS = {
    "url": "corpus: {paths: 's3://KEY:hidden@b/x'}",
    "list": "contrast: {paths: '@s3://KEY:hidden@b/list.txt'}",
    "query": "index: https://host/x?sig=hidden",
    "endpoint": "storage: {endpoint: 'http://u:hidden@host'}",
    "address": "ray: {address: 'ray://u:hidden@host:10001'}",
    "in an option": "storage: {options: {client_kwargs: {endpoint_url: 'http://u:hidden@host'}}}",
    "name of an option": "storage: {options: {client_kwargs: {aws_session_token: hidden}}}",
    "unknown key": "storage: {secret_key: hidden}",
    "variable": "selection: $GOTD_SECRET/x",
    "key and an unset variable": "selection: 's3://K:hidden@b/$GOTD_NOT_SET'",
    "wrong type": "name: 's3://K:hidden@b/ x'",
    "broken": "name: [s3://K:hidden@b",
}


@pytest.mark.parametrize("case", SECRETS)
def test_credentials_are_refused_and_never_shown(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOTD_SECRET", "s3://KEY:hidden@bucket")
    key, _, value = SECRETS[case].partition(": ")
    others = "".join(f"{line}\n" for line in BASE.splitlines() if not line.startswith(key))
    for said in (refusal(tmp_path, others + SECRETS[case]), refusal(tmp_path, BASE, f"{key}={value}")):
        assert "hidden" not in said and "KEY:" not in said
        assert "credentials" in said or case in ("unknown key", "broken")


@pytest.mark.parametrize("field", ["out", "index", "encoder.model", "model.base", "corpus.paths", "contrast.paths"])
@pytest.mark.parametrize(
    ("path", "environment", "said"),
    [
        ("$GOTD_X/a", {}, "'$GOTD_X/a' uses $GOTD_X, which is not set; export GOTD_X=... first"),
        ("${GOTD_X}", {"GOTD_X": ""}, "'${GOTD_X}' uses $GOTD_X, which is set but empty; export GOTD_X=... first"),
        ("$GOTD_X/a", {"GOTD_X": " "}, "'$GOTD_X/a' uses $GOTD_X, which is set but empty; export GOTD_X=... first"),
        (
            "$GOTD_X/a",
            {"GOTD_X": "$HOME/a"},
            "'$GOTD_X/a' uses $GOTD_X, whose own value holds a $. Export it with that written out",
        ),
        (
            "$GOTD_X/a",
            {"GOTD_X": "/a\n"},
            "'$GOTD_X/a' uses $GOTD_X, whose value holds an unseen character. Export it without it",
        ),
        ("${GOTD_X:-b}", {}, "'${GOTD_X:-b}' has a $ without a name. Write $NAME or ${NAME}, or $$ for a dollar sign"),
        ("$(pwd)/a", {}, "'$(pwd)/a' has a $ without a name. Write $NAME or ${NAME}, or $$ for a dollar sign"),
        ("~/a", {"HOME": ""}, "~ has no home folder (HOME is ''). Export HOME=..., or write the folder out"),
        ("~/a", {"HOME": "/"}, "~ has no home folder (HOME is '/'). Export HOME=..., or write the folder out"),
        ("~/a", {"HOME": "home"}, "~ has no home folder (HOME is 'home'). Export HOME=..., or write the folder out"),
        (
            "~no-such-user/a",
            {"HOME": "/home/x"},
            "~no-such-user has no home folder (HOME is '/home/x'). Export HOME=..., or write the folder out",
        ),
    ],
)
def test_a_useless_variable_is_refused_wherever_a_path_stands(
    field: str, path: str, environment: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    place = f"{field}.0" if field.endswith("paths") else field
    assert refusal(tmp_path, BASE, f"{field}={path}") == f"--set {field}: {place}: {said}."


def test_paths_are_expanded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me/")
    monkeypatch.setenv("GOTD_X", "~/y")
    sets = ["out=~/a", "index=$GOTD_X", "selection=s3://b/~x/$$1", "corpus.paths=['@~/l.txt', '@$GOTD_X/l.txt', a$$b]"]
    run = load(tmp_path, BASE, *sets)
    assert (run.out, run.index, run.selection) == ("/home/me/a", "/home/me/y", "s3://b/~x/$1")
    assert run.corpus.paths == ["@/home/me/l.txt", "@/home/me/y/l.txt", "a$b"]
    again = config.checked(run.model_copy(update={"seed": 4}))
    assert again == run.model_copy(update={"seed": 4})
    assert config.restored(run.model_dump(mode="json")) == run
    assert again.corpus.model_fields_set == {"paths"}


def test_messages_are_short_and_hold_no_escape_codes(tmp_path: Path) -> None:
    for text in ('"a\\x1b[31mb": 1\n', 'name: "a\\x1b[31m\\nb"\n', 'index: "\\x1b$"\n', 'select: {"\\x1b": {}}\n'):
        refusal(tmp_path, BASE + text)
    refusal(tmp_path, BASE, "na\x1b[31mme=5")
    assert len(refusal(tmp_path, BASE + f"name: '{'x ' * 10_000}'\n")) < 400
