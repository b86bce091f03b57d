"""Small tools that every room may use: pending results, timers, threads, clocks, progress."""
