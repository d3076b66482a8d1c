"""The package on one GPU: are the numbers right, and how fast do they come? For a machine that may be bare.

    python benchmarks/gpu/check.py [--model minilm] [--vectors vectors.npz] [--out results.jsonl]
    python benchmarks/gpu/check.py --toy              # the same at toy size, on the CPU where there is no GPU

Without a network, take along what ``python benchmarks/gpu/pack.py FOLDER`` writes (MiniLM in float16, real vectors).

Of the package only what knows no Ray is imported, by the part that needs it:

- solver: ``gotd_ray.ot``. It needs numpy, torch, safetensors and threadpoolctl.
- encoder: ``gotd_ray.models.encoder`` and ``gotd_ray.config``. They need transformers, tokenizers, pyarrow, PyYAML and
  pydantic; where pydantic is missing it travels as wheels (pydantic, pydantic-core, annotated-types,
  typing-inspection).

Not to be imported there are ``gotd_ray.stages``, ``pipeline``, ``compare``, ``cluster``, ``remote`` and all above them,
for Ray, and the readers in ``gotd_ray.text``, for warcio.
"""
