"""Builds Baton's corpora from a Linux distribution's package descriptions.

`apt_sources` and `apt_lists` fetch the indexes; `descriptions` reads and aligns them; `splits` decides what
is held out; `builders` turns them into rows; `jsonl` writes them down.
"""
