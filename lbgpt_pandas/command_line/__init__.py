"""Commands for scripts: what ``python -m lbgpt_pandas`` does with tables in files."""
