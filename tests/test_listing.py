"""What a listing takes and what it passes over: nothing twice, nothing without a word."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import S3Server

from gotd_ray import config, storage
from gotd_ray.errors import UserError
from gotd_ray.listing import Listing, list_all
from gotd_ray.text.documents import read_documents
from gotd_ray.text.tally import Tally

LOCAL = config.Storage()
SENTENCE = "The quick brown fox number {} jumps over the lazy dog again and again."


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"text": SENTENCE.format(name)}))
    return folder


def listing(*paths: object, client: config.Storage = LOCAL, **text: Any) -> Listing:
    """Of paths as they are: the config expands some, and refuses what cannot be seen."""
    known = config.Text.model_validate({"paths": ["x"], **text})
    return list_all(known.model_copy(update={"paths": [str(path) for path in paths]}), client)


def taken(found: Listing, root: object) -> list[str]:
    return [file.uri.removeprefix(f"{root}/") for file in found.files]


def passed(found: Listing, root: object) -> list[tuple[str, str]]:
    return [(uri.removeprefix(f"{root}/"), reason) for uri, reason in found.passed_over]


def test_a_data_set_beside_its_readme_is_refused_and_named_and_not_replaced_by_the_readme(tmp_path: Path) -> None:
    make(tmp_path, "README.md", "LICENSE.txt", *(f"data/part-{i:03}.log.gz" for i in range(200)))
    with pytest.raises(UserError) as caught:
        listing(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "holds no file that ends in .parquet, .jsonl" in message
    assert "format: jsonl" in message
    assert f"200 passed over, an ending that is not read: {tmp_path}/data/part-000.log.gz" in message
    assert f"2 passed over, a README, license or the like: {tmp_path}/LICENSE.txt, {tmp_path}/README.md" in message
    found = listing(f"{tmp_path}/data/*.log.gz", format="jsonl")
    assert len(found.files) == 200 and not found.counts


def test_what_is_passed_over_is_counted_in_full_and_the_first_of_each_reason_are_named(tmp_path: Path) -> None:
    others = [f"b{i}.dat" for i in range(5)]
    hidden = [".git/x.txt", ".git/y/z.txt", "_SUCCESS", "deep/.part-0.jsonl.crc", "deep/_metadata"]
    about = ["README.md", "readme.en.txt", "deep/LICENSE-MIT.txt", "COPYING.txt", "Changelog.md.gz"]
    make(tmp_path, "a.jsonl", "deep/b.txt", "readme.jsonl", *others, *hidden, *about)
    found = listing(tmp_path)
    assert taken(found, tmp_path) == ["a.jsonl", "deep/b.txt", "readme.jsonl"]
    assert found.counts == {"ending": 5, "about": 5, "hidden": 4}
    assert passed(found, tmp_path) == [
        *((name, "ending") for name in others[:3]),
        *((name, "about") for name in ("COPYING.txt", "Changelog.md.gz", "README.md")),
        *((name, "hidden") for name in (".git", "_SUCCESS", "deep/.part-0.jsonl.crc")),
    ]
    assert found.words()[0].endswith("b0.dat, " + f"{tmp_path}/b1.dat, {tmp_path}/b2.dat, ...")


def test_what_the_user_names_is_taken_and_not_said_to_be_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "README.md", "_hidden.txt", "a.md", ".b/c.md", "x.log")
    assert taken(listing(f"{tmp_path}/README.md"), tmp_path) == ["README.md"]
    found = listing(tmp_path, f"{tmp_path}/README.md", f"{tmp_path}/_hidden.txt", f"{tmp_path}/.b")
    assert taken(found, tmp_path) == [".b/c.md", "README.md", "_hidden.txt", "a.md"]
    assert found.counts == {"ending": 1, "hidden": 1}  # x.log, and .b by the first path
    found = listing(f"{tmp_path}/*.md")
    assert taken(found, tmp_path) == ["a.md"]
    assert passed(found, tmp_path) == [("README.md", "about")]


@pytest.mark.parametrize(
    "name", ["readme-first.jsonl", "notice-of-intent.txt", "changes-1.md", "readmes.txt", "unlicensed.md"]
)
def test_documents_with_like_names_are_taken(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    assert taken(listing(tmp_path), tmp_path) == [name]


def test_a_file_counts_once_under_all_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "data/b.jsonl", "data/deep/c.jsonl")
    (tmp_path / "data" / "a.jsonl").symlink_to("b.jsonl")
    os.link(tmp_path / "data" / "b.jsonl", tmp_path / "data" / "z.jsonl")
    (tmp_path / "again").symlink_to("data")
    (tmp_path / "data" / "up").symlink_to("deep/../deep")
    monkeypatch.chdir(tmp_path)
    spellings = [
        (tmp_path,),
        (f"{tmp_path}/data", f"{tmp_path}/again", f"{tmp_path}/data/../data/*"),
        (f"{tmp_path}/again/a.jsonl", f"{tmp_path}/data/a.jsonl", f"file://{tmp_path}/data/", f"{tmp_path}//again/"),
        ("again", "data", "./data/deep"),
        (f"{tmp_path}/**/*.jsonl",),
    ]
    for paths in spellings:
        found = listing(*paths)
        assert taken(found, tmp_path) == ["data/b.jsonl", "data/deep/c.jsonl"], paths
        assert found.counts["twice"] >= 2
    assert taken(listing(f"{tmp_path}/ag*/b.jsonl"), tmp_path) == ["again/b.jsonl"]
    assert taken(listing(f"{tmp_path}/ag*/**/c.jsonl"), tmp_path) == ["again/deep/c.jsonl"]
    assert ("data/z.jsonl", "twice") in passed(listing(tmp_path / "data"), tmp_path)
    assert taken(listing(tmp_path / "again"), tmp_path) == ["again/b.jsonl", "again/deep/c.jsonl"]
    assert taken(listing(tmp_path / "data" / "a.jsonl"), tmp_path) == ["data/a.jsonl"]


@pytest.mark.parametrize("paths", [("",), ("/**/*.txt",), ("", "/loop", "/deep/up/deep")])
def test_loops_of_links_end(tmp_path: Path, paths: tuple[str, ...]) -> None:
    make(tmp_path, "a.txt", "deep/b.txt")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "deep" / "up").symlink_to("..")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    found = listing(*(f"{tmp_path}{path}" for path in paths))
    assert taken(found, tmp_path) == ["a.txt", "deep/b.txt"]


def test_a_glob_looks_only_where_it_can_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a/x.txt", "b/x.txt", "a/deep/er/x.txt", "c/y.txt")
    looked: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (looked.append(str(path)), scandir(path))[1])
    found = listing(f"{tmp_path}/*/x.txt")
    assert taken(found, tmp_path) == ["a/x.txt", "b/x.txt"]
    assert sorted(looked) == [str(tmp_path), *(f"{tmp_path}/{name}" for name in "abc")]


def test_dangling_links_and_what_is_no_file_are_named(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    (tmp_path / "gone.jsonl").symlink_to("nowhere.jsonl")
    (tmp_path / "folder").symlink_to("no-such-folder")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s.txt"))
        found = listing(tmp_path)
    assert taken(found, tmp_path) == ["a.txt"]
    assert passed(found, tmp_path) == [
        *(("folder", "broken_link"), ("gone.jsonl", "broken_link")),
        *(("pipe.jsonl", "special"), ("s.txt", "special")),
    ]
    assert passed(listing(f"{tmp_path}/*"), tmp_path) == passed(found, tmp_path)
    with pytest.raises(UserError, match=r"gone.jsonl' does not exist"):
        listing(tmp_path / "gone.jsonl")
    with pytest.raises(UserError, match=r"pipe.jsonl' is neither file nor folder"):
        listing(tmp_path / "pipe.jsonl", format="jsonl")
    with pytest.raises(UserError, match=r"a.txt/x' does not exist"):
        listing(tmp_path / "a.txt" / "x")


def test_folders_that_are_called_like_files_give_their_files(tmp_path: Path) -> None:
    for name in ("x.parquet/part-0.snappy.parquet", "x.parquet/k=1/part-1.parquet", "y.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": [SENTENCE]}), tmp_path / name)
    make(tmp_path, "x.parquet/_SUCCESS", "x.parquet/.part-0.snappy.parquet.crc", "plain/z.jsonl")
    expected = ["x.parquet/k=1/part-1.parquet", "x.parquet/part-0.snappy.parquet", "y.parquet"]
    for path in ("*.parquet", "**/*.parquet"):
        assert taken(listing(f"{tmp_path}/{path}"), tmp_path) == expected
    assert taken(listing(f"{tmp_path}/x.parquet"), tmp_path) == expected[:2]
    found = listing(tmp_path)
    assert taken(found, tmp_path) == ["plain/z.jsonl", *expected]
    assert found.counts == {"hidden": 2}
    found = listing(f"{tmp_path}/*")
    assert taken(found, tmp_path) == expected
    assert ("plain", "folder") in passed(found, tmp_path)


NAMES = [
    *("with space", "#hash", "50%", "%41", "what?", "st*r", "[ab]", "{a,b}", "@at", "line\nbreak", "tab\t", "\x1b[31m"),
    *(
        "~",
        "$HOME",
        "a:b",
        "https:",
        "quo'te\"",
        "back\\slash",
        "\u00fc\u4e16\U0001f600",
        "-rf",
        "x" * 240,
        "a=b&key=c",
    ),
]


@pytest.mark.parametrize("name", NAMES)
def test_files_and_folders_of_odd_names_are_listed_and_read(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"{name}.jsonl", f"{name}/{name}.jsonl", "other.jsonl")
    for paths, expected in (
        ((tmp_path,), [f"{name}.jsonl", f"{name}/{name}.jsonl", "other.jsonl"]),
        ((tmp_path / name,), [f"{name}/{name}.jsonl"]),
        ((tmp_path / f"{name}.jsonl",), [f"{name}.jsonl"]),
    ):
        found = listing(*paths)
        assert sorted(taken(found, tmp_path)) == sorted(expected)
        text = config.Text(paths=["x"])
        read = [one for file in found.files for one in read_documents(file, text, config.Chunks(), LOCAL, Tally())]
        assert [one.path for one in read] == [file.uri for file in found.files]
        assert all(one.text for one in read)
    with pytest.raises(UserError) as caught:
        listing(tmp_path / name / "no such")
    assert str(caught.value).isprintable()


def test_a_name_that_is_not_utf8_is_passed_over_and_shown_without_harm(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    folder = os.fsencode(tmp_path)
    with open(folder + b"/caf\xe9.txt", "wb") as file:  # noqa: PTH123
        file.write(b"text")
    os.mkdir(folder + b"/d\xe9")  # noqa: PTH102
    found = listing(tmp_path)
    assert taken(found, tmp_path) == ["a.txt"]
    assert found.counts == {"name": 2}
    (words,) = found.words()
    assert words.endswith("caf\\udce9.txt, " + f"{tmp_path}/d\\udce9")


def test_a_list_of_paths_keeps_odd_names_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "a b.txt", "x\u2028y.txt", "#c.txt", "@d.txt")
    (tmp_path / "list.txt").write_text("a b.txt\r\n# note\n\nx\u2028y.txt\n./#c.txt\n./@d.txt\n", newline="")
    assert taken(listing(f"@{tmp_path}/list.txt"), tmp_path) == ["#c.txt", "@d.txt", "a b.txt", "x\u2028y.txt"]
    (tmp_path / "empty.txt").write_text("# nothing yet\n")
    with pytest.raises(UserError, match="names no path"):
        listing(f"@{tmp_path}/empty.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9.txt\n")
    with pytest.raises(UserError, match=r"latin.txt' cannot be read: UnicodeDecodeError"):
        listing(f"@{tmp_path}/latin.txt")


def test_a_missing_path_is_one_line_whatever_its_name(tmp_path: Path) -> None:
    for name in ("gone", "go\nne", "\x1b[31mred", "x" * 300, "nul\0"):
        with pytest.raises(UserError) as caught:
            listing(tmp_path / name)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("library", ["memory", "pyarrow", "s3fs"])
def test_other_storages_pass_over_the_same(s3: S3Server, library: str) -> None:
    client = (
        LOCAL if library == "memory" else config.Storage.model_validate({"library": library, "endpoint": s3.endpoint})
    )
    root = f"memory://{time.monotonic_ns()}" if library == "memory" else f"s3://bucket/{library}-listing"
    names = ("a.jsonl", "README.md", "b.dat", "deep/c.txt", "x.parquet/_SUCCESS", "x.parquet/p.parquet", ".h/d.txt")
    for name in names:
        storage.write_bytes(f"{root}/{name}", SENTENCE.encode(), client)
    found = listing(root, client=client)
    assert taken(found, root) == ["a.jsonl", "deep/c.txt", "x.parquet/p.parquet"]
    assert passed(found, root) == [
        *(("b.dat", "ending"), ("README.md", "about"), (".h", "hidden"), ("x.parquet/_SUCCESS", "hidden"))
    ]
    found = listing(f"{root}/*", f"{root}/**/*.txt", f"{root}/a.jsonl", client=client)
    assert taken(found, root) == ["a.jsonl", "deep/c.txt", "x.parquet/p.parquet"]
    assert found.counts == {"ending": 1, "about": 1, "hidden": 2, "folder": 1}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "d", "d/e", "f"]), st.booleans()), max_size=6),
    st.lists(
        st.tuples(
            st.sampled_from(["soft", "hard", "up"]), st.sampled_from(["x", "d/x", "f/x", "d/e/y"]), st.integers(0, 20)
        ),
        max_size=6,
    ),
    st.randoms(use_true_random=False),
)
def test_whatever_links_there_are_each_file_counts_once_in_any_order_of_the_paths(
    files: list[tuple[str, str, bool]], links: list[tuple[str, str, int]], random: Any
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        for folder in ("d/e", "f"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for stem, folder, known in files:
            make(root, f"{folder}/{stem}{'.jsonl' if known else '.dat'}".strip("/"))
        for kind, place, which in links:
            there = sorted(path for path in root.rglob("*.jsonl") if path.is_file())
            path = root / (place if kind == "up" else f"{place}.jsonl")
            if path.exists() or path.is_symlink():
                continue
            if kind == "up":
                path.symlink_to([root, root / "d", root / "f", root / "d" / "e"][which % 4])
            elif there and kind == "soft":
                path.symlink_to(there[which % len(there)])
            elif there:
                os.link(there[which % len(there)], path)
        real = {(path.stat().st_dev, path.stat().st_ino) for path in root.rglob("*.jsonl")}
        if not real:
            return
        paths = [str(root), f"{root}/**/*.jsonl", *(str(path) for path in root.rglob("*.jsonl"))]
        expected = listing(root)
        assert len(expected.files) == len(real)
        assert {(os.stat(file.uri).st_dev, os.stat(file.uri).st_ino) for file in expected.files} == real  # noqa: PTH116
        assert not any(Path(file.uri).is_symlink() for file in expected.files)
        for _ in range(3):
            random.shuffle(paths)
            assert listing(root, *paths[:3]).files == expected.files
