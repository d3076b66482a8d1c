"""Kinds of encoder, a file each, named as ``encoder.kind`` is; what each must give: :mod:`gotd_ray.models.encoder`."""
