"""What scripts/setup.py fetches with: the parts of the cache, and wheels by pip."""
