"""The tools of scripts/setup.py: parts of the cache, and wheels by pip."""
