"""The outside world, one module for each foreign library; each fulfils a promise of `ports`."""
