"""Parallel text from the files of Debian packages: message catalogues, help, handbooks, manual pages, and
AppStream texts.

The rooms, in the order in which a run goes through them:

- `paths`: which paths hold a language's text, and where the English twin of each lies; pure.
- `archive`: fetches apt's indexes of paths and the packages, and keeps what is wanted of them; the only one
  that runs programs.
- `choice`: which packages a budget of megabytes buys; pure.
- `messages`, `keyed`, `markup`, `roff`: one family of file formats each, bytes in, texts out; pure.
- `alignment`: pairs the blocks and sentences of two texts; pure.
- `cleaning`: what is taken off a text, and which pairs are kept; pure.
- `pairs`: the pairs of one file with their places; pure.
- `corpus`: duplicates, held-out packages, documents of several sentences; pure.
"""
