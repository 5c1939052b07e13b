"""Environments: EnvSpec -> EnvLock -> tree.

Nouns: ``EnvSpec`` (what was asked), ``EnvLock`` (what it resolved to, per platform), ``Tree`` (a prefix on disk
with its description), ``WheelStore`` (verified artefacts by sha256). Not here: images, running steps, flows.
"""
