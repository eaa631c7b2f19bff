"""The package version, read by the build and by `lbgpt_pandas.__version__`."""

__version__ = "0.1.0"
