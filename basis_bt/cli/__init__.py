"""The ``basis-bt`` command: one verb a file, loaded when it is called."""
