"""Words: states, rows, commands, events and effects, as data. Nothing here decides or performs."""
