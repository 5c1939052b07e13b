"""The API that users import in flows: FlowSpec, decorators, parameters; and the child half that runs a step.

What a step's own process imports from here is standard library only. Not here: locking, processes, terminals.
"""
