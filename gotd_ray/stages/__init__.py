"""The Ray glue: one thin file per stage, in the order of ``pipeline.py``. Stages meet only in files."""
