"""Other backtesters doing one common task, each in a module that imports only where its package is installed."""
