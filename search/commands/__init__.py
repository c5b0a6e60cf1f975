"""What `thawline` can do: a function per command, a module per kind. Only here and in `cli.py` do the packages meet."""
