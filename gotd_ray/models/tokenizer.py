"""Where the encoder's files lie, and texts to token ids. No weights are loaded here, so reader tasks start fast."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from gotd_ray.config import Encoder
from gotd_ray.errors import UserError, said_by
from gotd_ray.models import cache

# Modules of a sentence-transformers model that TextEncoder computes itself.
_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}
# Only what a safetensors encoder needs: no pickles, no other backends' weights.
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_HUB_OTHER_BACKENDS = ["onnx/*", "openvino/*"]
# What of a model's files tokenizers are made of.
_TOKENIZER_FILES = {".json", ".txt", ".model", ".tiktoken"}
_UNKNOWN_LIMIT = 512  # tokens, where neither the tokenizer nor the model states a limit


def find_model(settings: Encoder) -> str:
    """The folder of the model: ``settings.model`` itself, an installed package's ``model/``, or a hub download.

    Raises:
        UserError: nothing is found, the model has no safetensors weights, or it has modules we do not compute.
    """
    name = settings.model
    folder = next((f for f in (Path(name), _package_folder(name)) if f is not None and f.is_dir()), None)
    if folder is None:
        folder = download(name, settings.revision, "encoder.model")
    weights = transformer_folder(folder)
    if not (weights / "config.json").is_file():
        raise UserError(f"encoder.model is '{name}', but {weights} has no config.json. Give a Hugging Face model.")
    if not any(weights.glob("*.safetensors")):
        raise UserError(
            f"encoder.model is '{name}', but {weights} holds no *.safetensors. Pickled weights (.bin) can run code "
            "when loaded and are refused. Convert with model.save_pretrained(folder), or choose another revision."
        )
    return str(folder)


def _package_folder(name: str) -> Path | None:
    package = name.replace("-", "_")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) / "model" if places else None


def download(name: str, revision: str | None, setting: str) -> Path:
    """The folder of a model from the hub; ``setting`` is the key that names it, for the error."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=_HUB_FILES,
                ignore_patterns=_HUB_OTHER_BACKENDS,
                etag_timeout=5,
            )
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{setting} is '{name}' (revision {revision or 'default'}): not a folder, not an installed package "
            f"with a model/ folder, and the Hugging Face hub said: {reason} Check the name, install the package, or "
            "download the model where there is a network and give its folder."
        ) from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:  # cut short, or not UTF-8
        raise UserError(f"{path} is damaged: {error}. Fetch the model again, or choose another.") from None


def _modules(folder: Path) -> list[dict[str, str]]:
    """The sentence-transformers modules in order; empty for a plain Hugging Face model."""
    modules = list(_json(folder / "modules.json"))
    unknown = [kind for m in modules if (kind := m["type"].rpartition(".")[2]) not in _KNOWN_MODULES]
    if unknown:
        raise UserError(
            f"the encoder '{folder.name}' has the modules {', '.join(unknown)}; only "
            f"{', '.join(sorted(_KNOWN_MODULES))} are supported. Choose an encoder without them."
        )
    return modules


def transformer_folder(folder: Path) -> Path:
    """Where config, weights and tokenizer lie (sentence-transformers may keep them in ``0_Transformer``)."""
    paths = [m["path"] for m in _modules(folder) if m["type"].endswith("Transformer")]
    return folder / paths[0] if paths else folder


def model_width(folder: Path) -> int:
    """Numbers in a vector.

    Raises:
        UserError: the model does not state it.
    """
    files = transformer_folder(folder)
    stated = _json(files / "config.json").get("hidden_size")
    if stated is None:  # some families have another word for it, which transformers knows
        from transformers import AutoConfig

        with _as_user_error("config", folder):
            stated = AutoConfig.from_pretrained(files, trust_remote_code=False, local_files_only=True).hidden_size
    return int(stated)


@contextmanager
def _as_user_error(what: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a parser of foreign files may stumble in any way
        raise UserError(
            f"the {what} of the encoder '{folder.name}' does not load: {said_by(error)}. Fetch it again, or choose "
            "another encoder.model."
        ) from None


def pooling(settings: Encoder, folder: Path) -> str:
    """``mean``, ``cls`` or ``last``: the setting, or under ``auto`` the model's own, else ``mean``.

    Raises:
        UserError: the model pools in another way.
    """
    if settings.pooling != "auto":
        return settings.pooling
    paths = [m["path"] for m in _modules(folder) if m["type"].endswith("Pooling")]
    if not paths:
        return "mean"
    stated = _json(folder / paths[0] / "config.json")
    # Before version 6 the mode was one boolean key per kind, pooling_mode_mean_tokens and so on.
    old = [key.removeprefix("pooling_mode_") for key, on in stated.items() if key.startswith("pooling_mode_") and on]
    mode = stated.get("pooling_mode", old)
    mode = mode[0] if isinstance(mode, list) and len(mode) == 1 else mode
    known = {"mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls", "lasttoken": "last"}
    if not isinstance(mode, str) or mode not in known:
        raise UserError(
            f"the encoder '{folder.name}' pools by {mode}; mean, cls and lasttoken are supported. "
            "Set encoder.pooling to one of mean, cls, last, or choose another encoder."
        )
    return known[mode]


def identity(settings: Encoder, root: Path, max_tokens: int, precision: str) -> dict[str, Any]:
    """What determines the vectors, up to rounding: equal identities may share an index. Holds no machine path."""
    files = transformer_folder(root)
    digest = hashlib.sha256()
    for path in [*sorted(files.glob("*.safetensors")), files / "config.json", files / "tokenizer.json"]:
        if path.is_file():
            with _as_user_error(path.name, root), path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return {
        "model": Path(settings.model).name if Path(settings.model).is_dir() else settings.model,
        "revision": settings.revision,
        "sha256": digest.hexdigest(),
        "pooling": pooling(settings, root),
        "normalize": settings.normalize,
        "max_tokens": max_tokens,
        "precision": precision,
        "prefix": settings.prefix,
    }


def _tokenizer(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The tokenizer that transformers makes of a model's files, as one of ``tokenizers``; and what that leaves out.

    It is made once on a machine and kept: transformers imports torch, 2 s and 200 MB that a reader has no use for.
    """
    import tokenizers

    digest = hashlib.sha256(f"{version('transformers')} {version('tokenizers')}".encode())
    with _as_user_error("tokenizer", folder):
        for path in sorted(transformer_folder(folder).iterdir()):
            if path.suffix in _TOKENIZER_FILES and path.is_file():
                digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())

    def make(kept: Path) -> None:
        fast, facts = _of_transformers(folder)
        fast.save(str(kept / "tokenizer.json"))
        (kept / "facts.json").write_text(json.dumps(facts), encoding="utf-8")

    try:
        kept = cache.once("tokenizers", digest.hexdigest()[:32], make)
        fast, facts = tokenizers.Tokenizer.from_file(str(kept / "tokenizer.json")), _json(kept / "facts.json")
    except Exception:  # noqa: BLE001 - what cannot be kept is made each time; and one that cannot be made says so then
        return _of_transformers(folder)
    fast.encode_special_tokens = facts["encode_special_tokens"]
    return fast, facts


def _of_transformers(folder: Path) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoTokenizer

    with _as_user_error("tokenizer", folder):
        made = AutoTokenizer.from_pretrained(transformer_folder(folder), trust_remote_code=False, local_files_only=True)
    if not made.is_fast:
        raise UserError(f"the encoder '{folder.name}' has no fast tokenizer (tokenizer.json). Choose another encoder.")
    fast = made.backend_tokenizer
    specials = fast.encode_special_tokens
    return fast, {"limit": made.model_max_length, "pad": made.pad_token_id, "encode_special_tokens": specials}


class Tokenizer:
    """Texts to token ids, as sentence-transformers makes them.

    Attributes:
        folder: of the model.
        max_tokens: ids kept per text, special tokens counted.
        pad_id: the id that fills a row of a batch.
    """

    def __init__(self, settings: Encoder) -> None:
        """Args:
            settings: model, revision, max_tokens and prefix are used.

        Raises:
            UserError: see ``find_model``; the model has no tokenizer that loads and is fast, or max_tokens is beyond
                its positions.
        """
        self.folder = Path(find_model(settings))
        files = transformer_folder(self.folder)
        self._fast, facts = _tokenizer(self.folder)
        stated = _json(files / "sentence_bert_config.json")
        self.max_tokens = _max_tokens(settings, stated, facts["limit"], _json(files / "config.json"))
        self.pad_id: int = facts["pad"] or 0
        if stated.get("do_lower_case"):
            from tokenizers import normalizers

            own = [self._fast.normalizer] if self._fast.normalizer else []
            self._fast.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
        self._fast.no_padding()
        self._fast.enable_truncation(self.max_tokens)
        self._specials = self._fast.num_special_tokens_to_add(is_pair=False)
        self._prefix = settings.prefix
        self._prefix_tokens = len(self._fast.encode(self._prefix, add_special_tokens=False).ids)

    @cached_property
    def frame(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids before and after a text's own: special tokens and the prefix."""
        tail = self._fast.encode("a").special_tokens_mask[::-1].index(0)
        empty = self([""])[0][0]
        return empty[: len(empty) - tail], empty[len(empty) - tail :]

    @property
    def vocabulary(self) -> list[str]:
        """The tokens by their ids; of an id without one, nothing."""
        names = {number: name for name, number in self._fast.get_vocab().items()}
        return [names.get(number, "") for number in range(max(names) + 1)]

    def __call__(self, texts: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
        """Args:
            texts: n texts.

        Returns:
            n arrays int32 of ids with special tokens, each cut to ``max_tokens``; and (n,) int64, the tokens of each
            uncut text without special tokens and prefix.
        """
        encodings = self._fast.encode_batch_fast([self._prefix + text for text in texts])
        ids = [np.asarray(e.ids, dtype=np.int32) for e in encodings]
        # The pieces beyond the cut carry special tokens again.
        counts = [sum(len(piece) - self._specials for piece in (e, *e.overflowing)) for e in encodings]
        return ids, np.maximum(np.asarray(counts, dtype=np.int64) - self._prefix_tokens, 0)


def _max_tokens(settings: Encoder, stated: dict[str, Any], tokenizer_limit: int, config: dict[str, Any]) -> int:
    """The setting, else the model's own limit (sentence_bert_config.json, else tokenizer and positions)."""
    limits = [tokenizer_limit, config.get("max_position_embeddings") or -1]
    known = [limit for limit in limits if 0 < limit < 10**6]  # tokenizers without a limit state 10**30
    if settings.max_tokens is None:
        return int(stated.get("max_seq_length") or min(known, default=_UNKNOWN_LIMIT))
    if known and settings.max_tokens > min(known):
        raise UserError(
            f"encoder.max_tokens is {settings.max_tokens}, but '{settings.model}' takes {min(known)} at most. Lower it."
        )
    return settings.max_tokens
