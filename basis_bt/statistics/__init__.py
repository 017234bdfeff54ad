"""What luck alone would show: Sharpe ratios and their errors, bootstraps, data snooping, overfitting, windows."""
