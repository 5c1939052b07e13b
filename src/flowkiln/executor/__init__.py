"""Running steps: the IO-free run state machine, the driver that performs its instructions, and the backends.

Nouns: ``RunPlan``/``StepPlan`` (what is to run), ``Assignment`` (one attempt of one task), ``Backend`` (where
attempts run), ``Prefix`` (the environment a process step runs in). Not here: locking, images, user flows.
"""
