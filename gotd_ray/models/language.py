"""The language model that is trained: found, loaded for an objective, saved in Hugging Face form with its card.

Weights come from safetensors or GGUF; nothing that was downloaded is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import torch
from safetensors import SafetensorError, safe_open

from gotd_ray import config, storage
from gotd_ray.errors import UserError, said_by
from gotd_ray.models import cache
from gotd_ray.models.chat import template_of
from gotd_ray.models.objectives import OBJECTIVES
from gotd_ray.models.tokenizer import download


@dataclass(frozen=True)
class Base:
    """A model on this machine's disk; ``gguf`` is the file of weights in the folder, or None for safetensors."""

    folder: Path
    gguf: str | None = None

    def readable(self) -> Path:
        """A folder with config, tokenizer and safetensors; of a GGUF file the one that it is unpacked to."""
        return _unpacked(self.folder / self.gguf) if self.gguf else self.folder


def find(model: config.Model, options: config.Storage) -> Base:
    """The files of ``model.base``.

    Raises:
        UserError: nothing is found, or it has neither safetensors nor GGUF weights.
    """
    name = model.base
    if "://" in name:
        return _in_folder(cache.fetch(name, options), name)
    path = Path(name)
    if path.is_file() and path.suffix == ".gguf":
        return Base(path.parent, path.name)
    package = _package(name)
    folder = next((f for f in (path, package and package / "model", package) if f and f.is_dir()), None)
    return _in_folder(folder or download(name, model.revision, "model.base"), name)


def _package(name: str) -> Path | None:
    package = name.replace("-", "_")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def _in_folder(folder: Path, name: str) -> Base:
    packed = sorted(folder.glob("*.gguf"))
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return Base(folder)
    if len(packed) == 1:
        return Base(folder, packed[0].name)
    raise UserError(
        f"model.base is '{name}', but {folder} holds neither config.json with *.safetensors nor one *.gguf file. "
        "Pickled weights (.bin) can run code when loaded and are refused: convert with model.save_pretrained(folder)."
    )


def identity(base: Base) -> dict[str, Any]:
    """What tells a base model from others: a fingerprint of its files. Holds no machine path."""
    digest = blake2b(digest_size=16)
    weights = [base.folder / base.gguf] if base.gguf else sorted(base.folder.glob("*.safetensors"))
    for path in [*weights, base.folder / "config.json", base.folder / "tokenizer.json"]:
        if path.is_file():
            digest.update(_digest(path))
    return {"name": base.gguf or base.folder.name, "fingerprint": digest.hexdigest()}


def _digest(path: Path) -> bytes:
    """Of the whole file: a training changes some of its tensors, wherever they lie."""
    try:
        state = path.stat()
        return _digest_of(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise UserError(f"the model's {path} cannot be read: {error.strerror}. Give this user the right to.") from None


@lru_cache(maxsize=64)
def _digest_of(path: Path, _size: int, _modified: int) -> bytes:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: blake2b(digest_size=16)).digest()


def weight_bytes(base: Base) -> int:
    """Of its weights in float32, by the headers of its files.

    Raises:
        UserError: one is no safetensors file.
    """
    folder, total = base.readable(), 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as weights:
                shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"model.base '{base.folder.name}': {path.name} cannot be read: {said_by(error)}. Fetch the model "
                "again, or choose another."
            ) from None
        total += 4 * sum(math.prod(shape) for shape in shapes)
    return total


@lru_cache(maxsize=4)
def _unpacked(file: Path) -> Path:
    """The folder of a GGUF file's model in Hugging Face's form, made once on a machine: the file takes long to parse.

    Raises:
        UserError: the file is no whole model, or the folder cannot be written.
    """
    import transformers

    try:
        key = f"{_digest(file).hex()}-{transformers.__version__}"
        return cache.once("gguf", key, lambda folder: _unpack(file, folder))
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - a parser of foreign files may stumble in any way
        raise UserError(
            f"model.base '{file.name}' cannot be unpacked to {cache.root()}: {said_by(error)}. Choose another base, "
            "or set XDG_CACHE_HOME to a folder that can be written and has room for its weights in float32."
        ) from None


def _unpack(file: Path, folder: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    given: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    # What the file gives is marked as quantised and cannot be saved: a fresh model takes its weights.
    with redirect_stderr(io.StringIO()):  # the bars of transformers' reader of GGUF, which obey no setting
        read, told = _auto("causal").from_pretrained(
            **given, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
        )
    if told["missing_keys"]:
        raise ValueError(f"it has no weights for {some(told['missing_keys'])}")
    settings = AutoConfig.from_pretrained(**given, trust_remote_code=False)
    model = _auto("causal").from_config(settings, dtype=torch.float32, trust_remote_code=False)
    give(model, read.state_dict())
    save(model, AutoTokenizer.from_pretrained(**given, trust_remote_code=False), folder, f"Unpacked from {file.name}.")


def give(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Set all weights of a model.

    Raises:
        ValueError: some of its tensors are not among them, nor tied to one that is; or there are others.
    """
    own = model.state_dict(keep_vars=True)
    given = {id(own[name]) for name in weights if name in own}  # a tied weight is one tensor under two names
    missing = [name for name, tensor in own.items() if name not in weights and id(tensor) not in given]
    if missing:
        raise ValueError(f"no weights for {some(missing)}")
    if others := sorted(set(weights) - set(own)):
        raise ValueError(f"weights of none of its tensors: {some(others)}")
    model.load_state_dict(weights, strict=False)


def some(names: Collection[str]) -> str:
    """A few names of many."""
    few = sorted(names)[:3]
    return ", ".join(few) + (f" and {len(names) - len(few)} others" if len(names) > len(few) else "")


def made_for(base: Base) -> str:
    """The objective of a base, by the model's own config; GGUF files hold causal models.

    Raises:
        UserError: the config names neither.
    """
    if base.gguf:
        return "causal"
    names = load_config(base).architectures or ["nothing"]
    found = [kind for name in names for kind, one in OBJECTIVES.items() if name.endswith(one.made_for)]
    if not found:
        raise UserError(
            f"the config of '{base.folder.name}' says {', '.join(names)}, which is neither a causal nor a masked "
            "language model. Set objective to causal or masked, or choose another model.base."
        )
    return found[0]


def load_tokenizer(base: Base, pad_token: str | None, chat_template: str | None = None) -> Any:
    """The tokenizer, with ``pad_token`` where it has none, and ``chat_template`` where one is given.

    Raises:
        UserError: there is none that can be loaded; ``pad_token`` is not one token of its vocabulary.
    """
    from transformers import AutoTokenizer

    folder = base.readable()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - a parser of foreign files may stumble in any way
        raise UserError(
            f"the tokenizer of '{base.folder.name}' does not load: {said_by(error)}. Put tokenizer.json and "
            "tokenizer_config.json beside the weights, or choose another model.base."
        ) from None
    if pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise UserError(
                f"model.pad_token is '{pad_token}', which is no token of '{base.folder.name}'. Take one that it has, "
                f"such as '{tokenizer.eos_token}'."
            )
        tokenizer.pad_token = pad_token
    if chat_template is not None:
        tokenizer.chat_template = template_of(chat_template)
    return tokenizer


def load_config(base: Base, labels: list[str] | None = None) -> Any:
    """The model's config, with the classes where there are any.

    Raises:
        UserError: it is none of a model that is known here.
    """
    from transformers import AutoConfig

    folder = base.readable()
    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - a parser of foreign files may stumble in any way
        raise UserError(
            f"the config of '{base.folder.name}' does not load: {said_by(error)}. Choose another model.base, or a "
            "newer transformers if it has its model."
        ) from None
    if labels:
        settings.id2label = dict(enumerate(labels))
        settings.label2id = {name: number for number, name in enumerate(labels)}
    return settings


def skeleton(base: Base, kind: str, labels: list[str] | None = None) -> torch.nn.Module:
    """The model without weights, to count its parameters.

    Raises:
        UserError: it cannot be had for this objective.
    """
    settings = load_config(base, labels)
    with _as_user_error(base, kind), torch.device("meta"):
        return _auto(kind).from_config(settings, trust_remote_code=False)


@contextmanager
def _as_user_error(base: Base, kind: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        if "allocate memory" in str(error):  # torch says so in a RuntimeError: for the caller to put in words
            raise
        # What transformers says of a model without such a head goes on with the names of all that have one.
        said = said_by(error).partition(" Model type should be one of")[0].rstrip(". ")
        raise UserError(
            f"model.base '{base.folder.name}' does not load as a {kind} model: {said}. Choose another base, or the "
            "objective that it was made for."
        ) from None


def _auto(kind: str) -> Any:
    import transformers

    return getattr(transformers, OBJECTIVES[kind].auto)


def load(base: Base, kind: str, seed: int, labels: list[str] | None = None) -> Any:
    """The model with float32 weights, on the CPU. A classifier's head that the base has not is drawn by ``seed``.

    Args:
        base: the files.
        kind: the objective, which has its own head.
        seed: of a new head's weights.
        labels: the classes, for classification.

    Raises:
        UserError: the weights do not load, or are not those of all of the model.
    """
    settings = load_config(base, labels)
    torch.manual_seed(seed)
    with _as_user_error(base, kind), quiet():
        model, told = _auto(kind).from_pretrained(
            base.readable(),
            config=settings,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=OBJECTIVES[kind].classifies,  # a head for other classes
            output_loading_info=True,
        )
        drawn = [*told["missing_keys"], *(name for name, *_ in told["mismatched_keys"])]
        if lacking := [name for name in drawn if not (OBJECTIVES[kind].classifies and of_head(name, model))]:
            raise ValueError(f"its files have no weights for {some(lacking)}, which would be drawn at random")
    model.config.use_cache = False  # a cache of keys would switch the mask of packed rows off
    return model


def of_head(name: str, model: Any) -> bool:
    """Whether a weight is a classifier's own; the pooler before it is not in models made for masked tokens."""
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and tables that transformers prints; what they say is raised here or expected."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def context_length(settings: Any, tokenizer: Any) -> int | None:
    """Tokens that a model takes at the most, by its config and its tokenizer; None where neither says so."""
    stated = [getattr(settings, "max_position_embeddings", None), tokenizer.model_max_length]
    known = [int(limit) for limit in stated if limit and 0 < limit < 10**6]  # no limit is written as 10**30
    return min(known, default=None)


def save(model: Any, tokenizer: Any, folder: Path, card: str) -> None:
    """Write weights (safetensors), config, tokenizer and card into a local folder."""
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")


def put(folder: Path, uri: str, options: config.Storage) -> None:
    """Copy a local folder to a folder anywhere."""
    filesystem, path = storage.resolve_folder(uri, options)
    filesystem.create_dir(path, recursive=True)
    pafs.copy_files(str(folder), path, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=filesystem)
