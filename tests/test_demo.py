"""The demo's texts: real documentation, no target in the corpus, the same bytes every time, never half."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gotd_ray import demo
from gotd_ray.errors import UserError

DOC = "A function of a package that is made up for this test.\n" * 3 + "And it ends."


def texts(path: Path) -> list[str]:
    return [str(text) for text in pq.read_table(path)["text"].to_pylist()]


def build(folder: Path, **options: Any) -> Path:
    demo.build(folder, **options)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def install(site: Path, name: str, version: str, files: dict[str, str]) -> None:
    """A package as pip would leave it."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for path, source in {"__init__.py": "", **files}.items():
        (site / name / path).parent.mkdir(parents=True, exist_ok=True)
        (site / name / path).write_text(source)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("demo"), packages=["fsspec", "no_such_package"])


def test_the_corpus_is_documentation_with_its_place(real: Path) -> None:
    table = pq.read_table(real / "corpus" / "fsspec.parquet")
    assert table.column_names == ["text", "source", "where"]
    assert len(table) > 100
    assert set(table["source"].to_pylist()) == {"fsspec"}
    assert min(map(len, texts(real / "corpus" / "fsspec.parquet"))) >= 120
    assert any(where.startswith("fsspec/spec.py:") for where in table["where"].to_pylist())
    assert [p.name for p in (real / "corpus").iterdir()] == ["fsspec.parquet"]


def test_the_target_is_split_by_modules_without_overlap(real: Path) -> None:
    train, test = texts(real / "target" / "train.parquet"), texts(real / "target" / "test.parquet")
    places = [pq.read_table(real / "target" / name)["where"].to_pylist() for name in ("train.parquet", "test.parquet")]
    modules = [{where.rpartition(":")[0] for where in some} for some in places]
    assert modules[0].isdisjoint(modules[1])
    assert set(train).isdisjoint(test)
    assert len(set(train)) == len(train) > 300
    assert 0.12 < len(test) / (len(train) + len(test)) < 0.28
    assert any("Sinkhorn" in text for text in test)


def test_general_texts_are_kept_out_of_the_corpus(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_is_general", lambda row: len(row[0]) % 5 == 0)
    built = build(tmp_path, packages=["fsspec"])
    general, corpus = texts(built / "general" / "test.parquet"), texts(built / "corpus" / "fsspec.parquet")
    assert not [text for text in corpus if len(text) % 5 == 0]
    others = set(texts(real / "corpus" / "fsspec.parquet")) - set(corpus)
    assert general
    assert sorted(general) == sorted(text[: demo.HELD_OUT_CHARS] for text in others)


def test_no_target_text_no_copy_and_no_test_stands_in_the_corpus(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stolen = next(text for text in texts(real / "target" / "train.parquet") if "\n " not in text)
    module = f"def a():\n    {DOC!r}\ndef b():\n    {DOC!r}\ndef c():\n    {stolen!r}\n"
    other = f"class A:\n    async def f(self):\n        {DOC + 'x'!r}"
    files = {"m.py": module, "other.py": other, "tests/t.py": f"{DOC + 'y'!r}", "test_m.py": f"{DOC + 'z'!r}"}
    files |= {"broken.py": "def (", "_vendor/v.py": f"{DOC + 'v'!r}", "half.py": "'" + "h" * 130 + "\\ud800'"}
    install(tmp_path / "site", "gotd_fake_package", "1.0", files)
    monkeypatch.syspath_prepend(tmp_path / "site")
    built = build(tmp_path / "demo", packages=["gotd_fake_package"])
    table = pq.read_table(built / "corpus" / "gotd_fake_package.parquet").to_pydict()
    assert table["where"] == ["gotd_fake_package/half.py:1", "gotd_fake_package/m.py:1", "gotd_fake_package/other.py:2"]
    assert table["text"] == [
        "h" * 130 + "?",
        DOC,
        DOC + "x",
    ]


def test_the_cap_goes_by_content_and_keeps_the_order_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    functions = [f"def f{i}():\n    {f'Number {i}. ' + DOC!r}\n" for i in range(30)]
    install(tmp_path, "gotd_fake_cap", "1.0", {"m.py": "".join(functions)})
    install(tmp_path, "gotd_fake_turned", "1.0", {"m.py": "".join(reversed(functions))})

    def capped(package: str, cap: int) -> list[str]:
        built = build(tmp_path / package / f"{cap}", packages=[package], max_per_package=cap)
        return texts(built / "corpus" / f"{package}.parquet")

    some = capped("gotd_fake_cap", 5)
    assert len(some) == 5
    assert capped("gotd_fake_turned", 5) == some[::-1]
    assert set(some) < set(capped("gotd_fake_cap", 9))


def test_a_second_build_gives_equal_bytes(real: Path, tmp_path: Path) -> None:
    assert contents(build(tmp_path / "again", packages=["fsspec", "no_such_package"])) == contents(real)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and a demo of one small package."""
    install(tmp_path / "site", "gotd_fake_small", "1.0", {"m.py": f"{DOC!r}"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "PACKAGES", ("gotd_fake_small",))
    return tmp_path


def test_the_texts_are_written_once_for_what_is_installed(small: Path) -> None:
    folder = demo.folder()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    assert {path.relative_to(folder).as_posix() for path in before} == {
        "corpus/gotd_fake_small.parquet", "target/train.parquet", "target/test.parquet", "general/test.parquet"
    }  # fmt: skip
    assert demo.folder() == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")} == before
    install(small / "site", "gotd_fake_small", "1.1", {"m.py": f"{DOC + ' More.'!r}"})
    shutil.rmtree(small / "site" / "gotd_fake_small-1.0.dist-info")
    assert demo.folder() != folder, "another version is another demo"


def test_a_build_that_was_killed_leaves_nothing_and_is_done_again(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(demo, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        demo.folder()
    assert not list((small / "cache").rglob("corpus"))
    assert (demo.folder() / "corpus" / "gotd_fake_small.parquet").exists()


def test_two_at_once_build_it_once(small: Path) -> None:
    code = (
        "from pathlib import Path; from gotd_ray import demo; demo.PACKAGES = ('gotd_fake_small',)\n"
        "if __name__ == '__main__': print(demo.folder())"
    )
    (small / "build.py").write_text(code)
    both = [
        subprocess.Popen(
            [sys.executable, small / "build.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = [one.communicate(timeout=1000) for one in both]
    assert {one.returncode for one in both} == {0}, answers
    assert answers[0][0] == answers[1][0]


def test_a_script_without_a_guard_does_not_wait_for_itself(small: Path) -> None:
    code = "from gotd_ray import demo; demo.PACKAGES = ('gotd_fake_small',)\nprint(demo.folder())"
    (small / "build.py").write_text(code)
    found = subprocess.run([sys.executable, small / "build.py"], capture_output=True, text=True, timeout=1000)
    assert found.returncode == 0, found.stderr
    assert (Path(found.stdout.strip()) / "corpus" / "gotd_fake_small.parquet").exists()


def test_a_cache_that_cannot_be_written_is_said(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(small / "file"))
    with pytest.raises(UserError) as caught:
        demo.folder()
    assert str(caught.value) == (
        f"the demo's texts cannot be written to {small}/file/gotd_ray: Not a directory. Set XDG_CACHE_HOME to a folder "
        "that can be written."
    )
