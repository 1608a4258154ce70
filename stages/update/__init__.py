"""What a stage does where the state before is at hand: the same bytes as the stage itself, at the cost of what changed.

Each module is named after its stage and has `update(before, layout, params, items)`. It returns False, and has changed nothing
that the stage would not write anew, where it cannot answer for the bytes; the stage then runs whole. DVC knows nothing of this
room: no stage depends on it, because no byte may.
"""
