"""Files as people have them, read into series: one importer a file, listed in ``formats.py``."""
