"""The one exception that ends a corpus command: its text is the whole message a user sees."""


class CorpusError(Exception):
    """Says in one line what failed and what to do next."""
