"""Teachers behind an API: asked once, paid once, and no more than was agreed to (08)."""
