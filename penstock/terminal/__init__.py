"""What a terminal shows: live progress, and the screens that end a command.

It knows events and plain data, no stage.
"""
