"""Trading what was backtested: replay, paper and live behind one interface, with the cost functions of the kernels."""
