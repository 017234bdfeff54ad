"""Market folders: which files there are, what they hold, and reading just what is asked for."""
