"""The store is the truth: records created once, content-addressed blobs, journals, artifacts, runs.

Nouns: ``Records`` (create-if-absent documents by key), ``Blobs`` (bytes by sha256), ``Journal``, ``Artifact``.
The index can be rebuilt from it. Not here: who runs what, environments, user flows.
"""
