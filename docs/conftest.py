"""The Markdown files of this folder run as doctests; its configuration is not a test."""

collect_ignore = ["conf.py", "api", "_build"]
