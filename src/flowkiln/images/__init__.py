"""EnvLock + base -> plan -> image: layers, records, registry, engine, OCI layout.

Takes from ``envs`` the lock as a value and the installed-tree description; knows no flow, no run and no store.
"""
