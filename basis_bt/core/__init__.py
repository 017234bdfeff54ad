"""Facts and checks every other folder stands on: errors, units, clock, instruments, models, rulebook."""
