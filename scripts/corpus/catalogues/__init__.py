"""Parallel text from the files of Debian packages: message catalogues, help, handbooks, manual pages, and
AppStream texts.

The modules, in the order in which a run uses them:

- `paths`: the paths with a language's text, and the place of each English twin; pure.
- `archive`: fetches apt's indexes of paths and the packages, and keeps what is wanted of them; the only one
  that runs programs.
- `choice`: which packages a budget of megabytes buys; pure.
- `messages`, `keyed`, `markup`, `roff`: one family of file formats each, bytes in, texts out; pure.
- `alignment`: pairs the blocks and sentences of two texts; pure.
- `cleaning`: what is removed from a text, and which pairs are kept; pure.
- `pairs`: the pairs of one file with their places; pure.
- `corpus`: duplicates, held-out packages, documents of several sentences; pure.
"""
