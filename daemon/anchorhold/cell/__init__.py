"""The cell: all confinement around one worker. Each layer is an object that applies and describes itself."""
