"""What a person reads of a run: terminal summary, notebook tables, charts, the one-page report."""
