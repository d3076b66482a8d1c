"""Properties of gotd_ray.storage."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import S3Server

from gotd_ray import config, filesystems, storage
from gotd_ray.errors import UserError

LOCAL = config.Storage()
SECRET = "wJalrXUtnFEMIexample"


def names(found: list[storage.StoredFile], root: Path | str) -> list[str]:
    return [file.uri.removeprefix(f"{root}/") for file in found]


def listed(paths: list[str], root: Path | str, text_format: str = "auto") -> list[str]:
    text = config.Text.model_validate({"paths": paths, "format": text_format})
    return names(storage.list_files(text, LOCAL), root)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.jsonl.gz",
        "a.parquet",
        "deep/c.txt",
        "deep/er/d.JSONL",
        "deep/er/e.wet.gz",
        "f.xml.gz",
        "image.png",
        "README",
        "x.parquet.gz",
        ".cache/g.txt",
        "_temporary/h.txt",
        "deep/_i.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def test_a_folder_gives_the_known_endings_at_any_depth_sorted_and_no_hidden_files(tree: Path) -> None:
    assert listed([str(tree)], tree) == [
        "a.parquet",
        "b.jsonl.gz",
        "deep/c.txt",
        "deep/er/d.JSONL",
        "deep/er/e.wet.gz",
    ]


def test_a_named_format_keeps_its_own_endings(tree: Path) -> None:
    assert listed([str(tree)], tree, "jsonl") == ["b.jsonl.gz", "deep/er/d.JSONL"]


@pytest.mark.parametrize(
    ("pattern", "text_format", "expected"),
    [
        ("*.parquet", "auto", ["a.parquet"]),
        ("?.jsonl.gz", "auto", ["b.jsonl.gz"]),
        ("**/*.txt", "auto", ["deep/c.txt"]),
        ("deep/**", "auto", ["deep/c.txt", "deep/er/d.JSONL", "deep/er/e.wet.gz"]),
        ("*/c.txt", "auto", ["deep/c.txt"]),
        ("deep/*", "auto", ["deep/c.txt"]),
        ("*.xml.gz", "jsonl", ["f.xml.gz"]),
        ("*", "jsonl", ["b.jsonl.gz"]),
        ("deep/_i.txt", "auto", ["deep/_i.txt"]),
        ("image.png", "text", ["image.png"]),
    ],
)
def test_globs_and_single_files(tree: Path, pattern: str, text_format: str, expected: list[str]) -> None:
    assert listed([f"{tree}/{pattern}"], tree, text_format) == expected


def test_paths_that_overlap_give_each_file_once(tree: Path) -> None:
    assert listed([str(tree), f"{tree}/deep", f"{tree}/deep/*.txt"], tree) == listed([str(tree)], tree)


def test_a_list_file_holds_paths_relative_to_itself(tree: Path) -> None:
    (tree / "list.txt").write_text(f"# corpus\n\ndeep/*.txt\n{tree}/a.parquet\n")
    assert listed([f"@{tree}/list.txt"], tree) == ["a.parquet", "deep/c.txt"]


def test_listed_paths_stay_valid_when_the_working_folder_changes(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    found = storage.list_files(config.Text(paths=["deep"]), LOCAL)
    monkeypatch.chdir("/")
    assert storage.read_bytes(found[0].uri, LOCAL) == b"deep/c.txt"
    assert all(Path(file.uri).is_absolute() for file in found)


def test_a_listed_file_has_its_size_and_time(tree: Path) -> None:
    os.utime(tree / "a.parquet", ns=(1, 1_600_000_000_123_456_789))
    assert storage.list_files(config.Text(paths=[f"file://{tree}/a.parquet"]), LOCAL) == [
        storage.StoredFile(f"{tree}/a.parquet", 9, 1_600_000_000_123_456_789)
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.txt", "does not exist"),
        ("gone/*.txt", "does not exist"),
        ("@gone.txt", "does not exist"),
        ("image.png", "no file that ends in"),
        ("*.nothing", "no file that ends in"),
    ],
)
def test_a_path_that_gives_nothing_is_named_with_a_remedy(tree: Path, name: str, words: str) -> None:
    path = f"@{tree}/{name[1:]}" if name.startswith("@") else f"{tree}/{name}"
    with pytest.raises(UserError, match=words) as caught:
        listed([path], tree)
    assert path.lstrip("@") in str(caught.value)


@pytest.fixture
def forbidden(tree: Path) -> Path:
    (tree / "deep").chmod(0)
    return tree / "deep"


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Root may read everything, so be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_what_may_not_be_read_is_a_user_error(forbidden: Path, unprivileged: None) -> None:
    for path in (forbidden, f"{forbidden}/a.txt", f"{forbidden}/*.txt"):
        with pytest.raises(UserError, match="permission"):
            listed([str(path)], forbidden)


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIAEXAMPLE:{SECRET}@bucket/x",
        f"s3://bucket/x?access_key=AKIAEXAMPLE&secret_key={SECRET}",
        f"https://host/x.parquet?X-Amz-Signature={SECRET}",
    ],
)
def test_credentials_in_a_path_are_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(UserError, match="AWS_ACCESS_KEY_ID") as caught:
        storage.resolve(uri, LOCAL)
    assert SECRET not in str(caught.value)


def test_credentials_in_the_endpoint_are_refused_and_not_shown() -> None:
    with pytest.raises(UserError) as caught:
        storage.resolve("s3://bucket/x", config.Storage(endpoint=f"http://key:{SECRET}@host:9000"))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "settings", "words"),
    [
        ("nonsense://x/y", {}, "no storage that we know"),
        ("gs://x/y", {"options": {"no_such_option": 1}}, "gs://"),
        ("s3://x/y", {"endpoint": "localhost:9000"}, "not a URL"),
        ("s3://x/y", {"library": "pyarrow", "options": {"profile": "p"}}, "options of s3fs"),
    ],
)
def test_settings_that_do_not_fit_are_user_errors(uri: str, settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        storage.resolve(uri, config.Storage(**settings))


def test_any_scheme_of_fsspec_reads_writes_lists_and_deletes() -> None:
    root = f"memory://{time.monotonic_ns()}"
    storage.write_bytes(f"{root}/a/b.txt", b"one", LOCAL)
    storage.write_bytes(f"{root}/a/c.txt", b"two", LOCAL)
    found = storage.list_files(config.Text(paths=[f"{root}/**/*.txt"]), LOCAL)
    assert names(found, root) == ["a/b.txt", "a/c.txt"]
    assert found[0].modified > 0
    assert [storage.read_bytes(file.uri, LOCAL) for file in found] == [b"one", b"two"]
    storage.delete_tree(f"{root}/a", LOCAL)
    assert not storage.exists(f"{root}/a/b.txt", LOCAL)


def test_local_writes_make_folders_and_leave_no_drafts(tmp_path: Path) -> None:
    uri = storage.join(f"{tmp_path}/", "a", "b.json")
    storage.write_bytes(uri, b"old", LOCAL)
    storage.write_bytes(uri, b"new", LOCAL)
    assert storage.read_bytes(uri, LOCAL) == b"new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


def test_deleting_what_is_absent_is_no_error_and_a_root_is_never_deleted(tmp_path: Path) -> None:
    storage.delete_tree(f"{tmp_path}/gone", LOCAL)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").touch()
    storage.delete_tree(f"{tmp_path}/d/f", LOCAL)
    storage.delete_tree(f"{tmp_path}/d", LOCAL)
    assert not storage.exists(f"{tmp_path}/d", LOCAL)
    with pytest.raises(AssertionError):
        storage.delete_tree("/home", LOCAL)


def test_pyarrow_and_s3fs_list_and_read_a_real_s3_server_alike(s3: S3Server) -> None:
    clients = [config.Storage(library=library, endpoint=s3.endpoint) for library in ("pyarrow", "s3fs")]
    for client in clients:
        root = f"s3://bucket/{client.library}"
        storage.write_bytes(f"{root}/deep/a.txt", b"alpha", client)
        storage.write_bytes(f"{root}/b.jsonl", b"beta", client)
        storage.write_bytes(f"{root}/b.jsonl", b"beta, again", client)
    for library in ("pyarrow", "s3fs"):
        root = f"s3://bucket/{library}"
        for paths in ([root], [f"{root}/**/*"], [f"{root}/*/a.txt", f"{root}/b.jsonl"]):
            first, second = (storage.list_files(config.Text(paths=paths), client) for client in clients)
            assert [(file.uri, file.size) for file in first] == [(file.uri, file.size) for file in second]
            # Arrow does not know the time where the server writes .27Z instead of .270Z, as rclone does.
            assert all(a.modified in (b.modified, 0) and b.modified > 0 for a, b in zip(first, second, strict=True))
            assert names(first, root) == ["b.jsonl", "deep/a.txt"]
            assert [file.size for file in first] == [11, 5]
        for client in clients:
            assert storage.read_bytes(f"{root}/b.jsonl", client) == b"beta, again"
    for client in clients:
        root = f"s3://bucket/{client.library}"
        storage.delete_tree(root, client)
        storage.delete_tree(root, client)
        assert not any(storage.exists(f"{root}/deep/a.txt", other) for other in clients)


@pytest.mark.parametrize("library", ["pyarrow", "s3fs"])
def test_wrong_credentials_are_a_user_error_that_shows_no_secret(
    s3: S3Server, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = config.Storage.model_validate({"library": library, "endpoint": s3.endpoint})
    storage.write_bytes("s3://bucket/secret.txt", b"text", config.Storage(endpoint=s3.endpoint))
    filesystems.client.cache_clear()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(UserError, match="permission") as caught:
        storage.list_files(config.Text(paths=["s3://bucket/secret.txt"]), client)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("library", ["pyarrow", "s3fs"])
def test_a_missing_bucket_and_a_dead_endpoint_are_user_errors(s3: S3Server, library: str) -> None:
    client = config.Storage.model_validate({"library": library, "endpoint": s3.endpoint})
    with pytest.raises(UserError, match="does not exist"):
        storage.list_files(config.Text(paths=["s3://no-such-bucket/x.txt"]), client)
    once = {"config_kwargs": {"retries": {"total_max_attempts": 1}}} if library == "s3fs" else {}
    dead = config.Storage.model_validate({"library": library, "endpoint": "http://127.0.0.1:9", "options": once})
    with pytest.raises(UserError, match=r"storage\.endpoint"):
        storage.list_files(config.Text(paths=["s3://bucket/x.txt"]), dead)


def test_a_file_that_breaks_off_while_it_is_written_leaves_the_old_one(tmp_path: Path) -> None:
    path, local = tmp_path / "deep" / "a.bin", config.Storage()
    with storage.create(str(path), local) as file:
        file.write(b"one")
        file.write(b"two")
        assert not path.exists()
    with pytest.raises(KeyError), storage.create(str(path), local) as file:
        file.write(b"three")
        raise KeyError
    assert path.read_bytes() == b"onetwo"
    assert [one.name for one in path.parent.iterdir()] == ["a.bin"]
